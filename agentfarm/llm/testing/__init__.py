"""Stand-ins for LLM servers, for the tests of people who build on AgentFarm.

`FakeProvider` answers in this process; `StubServer` is a real TCP server that
speaks both wire formats and can misbehave on request.
"""

from agentfarm.llm.testing._fake import FakeCall, FakeProvider
from agentfarm.llm.testing._log import SentPiece, StubRequest
from agentfarm.llm.testing._script import Answer, Fault, Reply
from agentfarm.llm.testing._stub import StubServer

__all__ = [
    "Answer",
    "FakeCall",
    "FakeProvider",
    "Fault",
    "Reply",
    "SentPiece",
    "StubRequest",
    "StubServer",
]
