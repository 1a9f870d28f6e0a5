"""Types of text_data_pb2.py, by hand: as much of them as we use."""

from collections.abc import Iterable

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer
from google.protobuf.message import Message

class Semantics(Message):
    values: RepeatedScalarFieldContainer[int]
    def __init__(self, values: Iterable[int] = ...) -> None: ...

class Sentence(Message):
    texts: RepeatedScalarFieldContainer[str]
    semantics: RepeatedCompositeFieldContainer[Semantics]
    def __init__(self, texts: Iterable[str] = ..., semantics: Iterable[Semantics] = ...) -> None: ...

class TextData(Message):
    source: str
    name: str
    sentences: RepeatedCompositeFieldContainer[Sentence]
    def __init__(self, source: str = ..., name: str = ..., sentences: Iterable[Sentence] = ...) -> None: ...
