"""Check a proof of `audit prove`, with PyNaCl alone: python check_proof.py PROOF.json PUBLIC_KEY_FILE."""

import base64
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from nacl.signing import VerifyKey


def check(proof: dict[str, Any], key: str) -> list[Any]:
    """Return the rows that are proven. Raises ValueError or BadSignatureError."""
    text, _, signature = proof["checkpoint"].partition("\n\n")
    signed = base64.b64decode(signature.split()[-1])[4:]
    VerifyKey(base64.b64decode(key.split("+", 2)[2])[1:]).verify(f"{text}\n".encode(), signed)
    for row in proof["rows"]:
        here = sha256(b"\0" + row["row"].encode()).digest()
        root = text.split("\ndays ")[1].split()[1]
        for way, above, end in (("to_batch", "batch", 6), ("to_day", "day", 5), ("to_days", None, None)):
            for side, beside in row[way]:
                pair = (bytes.fromhex(beside), here) if side == "left" else (here, bytes.fromhex(beside))
                here = sha256(b"\1" + b"".join(pair)).digest()
            if here.hex() != (row[above].split()[end] if above else root):
                raise ValueError(f"{way} leads elsewhere, from {row['row']}")
            here = sha256(row[above].encode()).digest() if above else here
    return [json.loads(row["row"]) for row in proof["rows"]]


if __name__ == "__main__":
    proven = check(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]).read_text().strip())
    sys.stdout.write(json.dumps(proven, indent=2) + "\n")
