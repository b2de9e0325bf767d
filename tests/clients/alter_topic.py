"""An operator who changes a setting of a topic.

    python alter_topic.py BROKERS TOPIC NAME VALUE
"""

import sys

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient


def main(brokers: str, topic: str, name: str, value: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={name: value})])


if __name__ == "__main__":
    main(*sys.argv[1:])
