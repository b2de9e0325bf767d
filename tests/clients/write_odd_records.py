"""A producer that is none of ours: writes records that nobody can process, into the partition of a key.

    python write_odd_records.py BROKERS TOPIC KEY [KIND ...]

Without kinds, a record with a header whose name is no text, and one that is far larger than it looks compressed.
"""

import random
import sys

from kafka import KafkaProducer
from kafka.partitioner.default import murmur2

CONTRACT = ("contract", b"faultline.ingest.v1")
TENANT = ("tenant", b"acme")
RECEIPT = ("receipt-time-ms", b"1")
HEADERS = [CONTRACT, TENANT, RECEIPT]


class Raw(str):
    """A header's name as bytes that are not UTF-8."""

    def encode(self, *_):
        return b"\xff\xfe"


# What differs from a record with the key and our headers.
KINDS = {
    "odd-name": {"value": b"value", "headers": [(Raw("name"), b"content")]},
    "huge": {"value": b"\x00" * 12 * 1024 * 1024},
    "random": {"value": random.Random(7).randbytes(2000)},
    "no-value": {"value": None},
    "no-key": {"key": None, "value": b""},
    "odd-key": {"key": b"\xff\xfe", "value": b""},
    "no-headers": {"value": b"", "headers": []},
    "many-headers": {"value": b"\xff", "headers": HEADERS + [("", b"")] * 50_000},
    "too-many-headers": {"value": b"\xff", "headers": HEADERS + [("", b"")] * 100_000},
    "odd-tenant": {"value": b"", "headers": [CONTRACT, ("tenant", b"\xff\xfe"), RECEIPT]},
    "odd-receipt": {"value": b"", "headers": [CONTRACT, TENANT, ("receipt-time-ms", b"soon")]},
    "newer-contract": {"value": b"", "headers": [("contract", b"faultline.ingest.v2"), TENANT, RECEIPT]},
}


def main(brokers: str, topic: str, key: str, *kinds: str) -> None:
    producer = KafkaProducer(bootstrap_servers=brokers, compression_type="gzip", max_request_size=64 * 1024 * 1024)
    partition = (murmur2(key.encode()) & 0x7FFFFFFF) % len(producer.partitions_for(topic))
    for kind in kinds or ("odd-name", "huge"):
        record = {"key": key.encode(), "headers": HEADERS, **KINDS[kind]}
        producer.send(topic, partition=partition, **record).get(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
