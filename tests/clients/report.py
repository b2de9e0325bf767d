"""A terminal in Python: reports one batch, sends the same again, and says what it was answered.

Its stubs are made from proto/ as they are, so what it says is the contract, not the Rust code.

    python report.py PROTO_DIRECTORY TARGET TOKEN TERMINAL

Prints two lines, one an answer: acknowledged through which sequence, refusals, redactions.
"""

import sys
import tempfile
import time
from pathlib import Path

import grpc
import grpc_tools
from grpc_tools import protoc


def make_stubs(proto: Path, out: str) -> None:
    files = sorted(str(path) for path in proto.glob("faultline/**/*.proto"))
    google = str(Path(grpc_tools.__file__).parent / "_proto")
    status = protoc.main(["protoc", f"-I{proto}", f"-I{google}", f"--python_out={out}", f"--grpc_python_out={out}", *files])
    if status != 0:
        raise SystemExit("no stubs could be made from proto/")
    sys.path.insert(0, out)


def main(proto: str, target: str, token: str, terminal: str) -> None:
    with tempfile.TemporaryDirectory() as out:
        make_stubs(Path(proto), out)
        from faultline.ingest.v1 import batch_pb2, ingest_service_pb2, ingest_service_pb2_grpc
        from faultline.outcome.v1 import outcome_pb2
        from faultline.terminal.v1 import profile_pb2

        def event(sequence: int, code: str) -> batch_pb2.Event:
            outcome = outcome_pb2.Outcome(
                merchant_id="898440351980019",
                type=outcome_pb2.TRANSACTION_TYPE_SALE,
                entry_mode=outcome_pb2.ENTRY_MODE_CHIP,
                stage=outcome_pb2.STAGE_HOST_DECISION,
                amount_minor=1234,
                currency_code="CNY",
                bin="622848",
                response_code=code,
                response_spec="unionpay-pos",
            )
            return batch_pb2.Event(sequence=sequence, age_ms=100, outcome=outcome)

        batch = batch_pb2.OutcomeBatch(terminal_id=terminal, spool_id=4711, events=[event(1, "00"), event(2, "51"), event(3, "91")])
        batch.send_time.FromNanoseconds(time.time_ns())
        profile = profile_pb2.TerminalProfile(model="PAX A920", firmware="7.1.2", carrier="46000", region="440300")

        with grpc.insecure_channel(target) as channel:
            service = ingest_service_pb2_grpc.IngestServiceStub(channel)
            credentials = [("authorization", f"Bearer {token}")]
            for _ in range(2):
                request = ingest_service_pb2.ReportOutcomesRequest(profile=profile, batch=batch)
                answer = service.ReportOutcomes(request, metadata=credentials, timeout=30).acknowledgement
                print(answer.acknowledged_through, len(answer.refusals), len(answer.redacted_sequences))


if __name__ == "__main__":
    main(*sys.argv[1:])
