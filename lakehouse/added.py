"""Which columns a stream's tables gained by themselves: one small object a column, written once, by whoever is first.

So every worker, and every start, has the same columns of the same types; later values of another type are refused.
"""

from __future__ import annotations

from urllib.parse import quote

import obstore
import orjson
from obstore.exceptions import AlreadyExistsError, NotFoundError

from contracts.added import Added, with_added
from contracts.model import Contract, UnknownFields
from lakehouse.lake import Lake

FOLDER = "_tidegate/columns"


def added_columns(lake: Lake, stream: str) -> dict[str, str]:
    """Give the columns that a stream gained: name -> type. Raises LakehouseError."""
    with lake.explained(f"list the added columns of {stream}"):
        try:
            found = obstore.list_with_delimiter(lake.objects, prefix=f"{FOLDER}/{stream}/")["objects"]
        except (FileNotFoundError, NotFoundError):
            return {}
    read = [orjson.loads(text) for entry in found if (text := lake.get(entry["path"])) is not None]
    return {column["name"]: column["type"] for column in read}


def claim_columns(lake: Lake, stream: str, columns: Added) -> dict[str, str]:
    """Give columns to a stream unless it has them, and give all that it then has. Raises LakehouseError."""
    for name, kind in columns.items():
        path = f"{FOLDER}/{stream}/{quote(name, safe='')}.json"
        with lake.explained(f"write {path}"):
            try:
                obstore.put(lake.objects, path, orjson.dumps({"name": name, "type": kind}), mode="create")
            except (AlreadyExistsError, FileExistsError):
                continue  # its type is settled
    return added_columns(lake, stream)


def effective(lake: Lake, contract: Contract) -> Contract:
    """Give a contract with the columns that its stream gained; itself when it does not want any."""
    if contract.unknown_fields is not UnknownFields.ADD:
        return contract
    return with_added(contract, added_columns(lake, contract.stream))
