"""The email hash: the keyed hash of a whole address, with its domain kept for grouping."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from udfs.arrays import any_true, is_ascii
from udfs.digests import Hmac

HASH_CHARACTERS = 32  # 128 bits: two addresses in 2^64 meet
_ADDRESS = r"(?s)^.+@(?P<domain>[^@]+)$"


def email_hash(texts: pa.StringArray, hmac: Hmac) -> pa.StringArray:
    """Give `<32 hex characters>@<domain>`, hashed from the whole address, trimmed and in lower case.

    What is no address (nothing before the @, or a domain of more than letters, digits, dots and hyphens) gives the hash
    alone: the text after an @ is kept only where it can be nothing but a domain.
    """
    trimmed = pc.utf8_trim_whitespace(texts)
    addresses = pc.ascii_lower(trimmed) if is_ascii(trimmed) else pc.utf8_lower(trimmed)
    hashes = pc.binary_slice(hmac.hex(addresses).view(pa.binary()), 0, HASH_CHARACTERS).view(pa.string())
    domains = _domains(addresses)
    if domains.null_count == texts.null_count:
        return pc.binary_join_element_wise(hashes, domains, "@")
    return pc.coalesce(pc.binary_join_element_wise(hashes, domains, "@"), hashes)


def _domains(addresses: pa.StringArray) -> pa.StringArray:
    """Give the domain of each address, null where there is none."""
    parts = pc.split_pattern(addresses, "@", max_splits=1, reverse=True)
    present = len(addresses) - addresses.null_count
    if len(parts.flatten()) == 2 * present and not any_true(pc.starts_with(addresses, "@")):
        domains = pc.list_element(parts, 1)
        if pc.all(_is_domain(pc.unique(domains)), min_count=0).as_py():
            return domains
    found = pc.struct_field(pc.extract_regex(addresses, _ADDRESS), "domain")
    return pc.if_else(_is_domain(found), found, pa.scalar(None, pa.string()))


def _is_domain(texts: pa.StringArray) -> pa.BooleanArray:
    return pc.utf8_is_alnum(pc.replace_substring(pc.replace_substring(texts, ".", ""), "-", ""))
