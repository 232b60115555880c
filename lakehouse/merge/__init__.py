"""Merge-on-read: Delta tables to which rows are appended and in which rows are marked deleted, in one commit."""
