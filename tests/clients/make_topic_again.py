"""An operator who deletes a topic and makes it again, with the same number of partitions and the same settings.

    python make_topic_again.py BROKERS TOPIC
"""

import sys
import time

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError


def main(brokers: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    partitions = len(admin.describe_topics([topic])[0]["partitions"])
    settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(2 * 1024 * 1024), "retention.ms": str(7 * 86_400_000)}
    admin.delete_topics([topic])
    while True:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=settings)])
            return
        except TopicAlreadyExistsError:
            time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
