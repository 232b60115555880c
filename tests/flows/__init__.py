"""Flows through real Kafka, a real Flink cluster and real object storage."""
