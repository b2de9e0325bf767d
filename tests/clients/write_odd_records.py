"""A producer that is none of ours: writes a record with a header whose name is no text, and one that is far larger than it looks compressed.

    python write_odd_records.py BROKERS TOPIC KEY
"""

import sys

from kafka import KafkaProducer


class Raw(str):
    """A header's name as bytes that are not UTF-8."""

    def encode(self, *_):
        return b"\xff\xfe"


def main(brokers: str, topic: str, key: str) -> None:
    odd_name = KafkaProducer(bootstrap_servers=brokers)
    odd_name.send(topic, key=key.encode(), value=b"value", headers=[(Raw("name"), b"content")]).get(30)
    compressing = KafkaProducer(bootstrap_servers=brokers, compression_type="gzip", max_request_size=64 * 1024 * 1024)
    headers = [("contract", b"faultline.ingest.v1"), ("tenant", b"acme"), ("receipt-time-ms", b"1")]
    compressing.send(topic, key=key.encode(), value=b"\x00" * 12 * 1024 * 1024, headers=headers).get(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
