"""Every field of every record comes back as it was, or as the documentation says."""

import math
from dataclasses import fields, replace
from typing import get_args, get_type_hints

import pytest

from agentfarm.events import RequestRecord
from agentfarm.store import (
    GPUSampleRecord,
    HostSampleRecord,
    MemoryRecord,
    RunRecord,
    SampleRecord,
    Store,
    WorkflowRecord,
    WorkflowStepRecord,
)
from agentfarm.store._tables import (
    GPU_SAMPLES,
    HOST_SAMPLES,
    MEMORIES,
    REQUESTS,
    RUNS,
    SAMPLES,
    WORKFLOW_STEPS,
    WORKFLOWS,
    clean_json,
    clean_text,
)

WRITE_AND_READ = {
    RunRecord: (Store.put_run, lambda store, it: store.run(it.run_id)),
    SampleRecord: (Store.put_sample, lambda store, it: store.samples(it.run_id)[0]),
    RequestRecord: (Store.add_request, lambda store, it: store.requests()[0]),
    WorkflowRecord: (Store.put_workflow, lambda store, it: store.workflow(it.run_id)),
    WorkflowStepRecord: (
        Store.put_workflow_step,
        lambda store, it: store.workflow_steps(it.run_id)[0],
    ),
    MemoryRecord: (Store.add_memory, lambda store, it: store.memories(it.project)[0]),
    GPUSampleRecord: (Store.add_gpu_sample, lambda store, it: store.gpu_samples()[0]),
    HostSampleRecord: (
        Store.add_host_sample,
        lambda store, it: store.host_samples()[0],
    ),
}
RECORDS = list(WRITE_AND_READ)


def write_and_read(url, record):
    """Through one Store into the database, and out of it through another."""
    write, read = WRITE_AND_READ[type(record)]
    with Store.open(url) as store:
        write(store, record)
    with Store.open(url, read_only=True) as store:
        return read(store, record)


def filled(cls):
    """A record whose every field has a value of its own, none its default."""
    hints = get_type_hints(cls)
    values = {}
    for number, field in enumerate(fields(cls), start=1):
        hint = hints[field.name]
        options = get_args(hint)
        text = f"{field.name} 日本語 🦜🏳️‍🌈 'quoted' \\ %s :x"
        if field.name == "step_s":
            values[field.name] = 60  # others are not asked for
        elif str in options or hint is str:
            values[field.name] = text
        elif float in options or hint is float:
            values[field.name] = 1_700_000_000.123456 + number / 7
        elif hint is bool:
            values[field.name] = True
        elif int in options or hint is int:
            values[field.name] = 2**40 + number
        elif options and isinstance(options[0], str):
            values[field.name] = options[-1]
        else:
            values[field.name] = {text: [number, 0.1, None, {"deep": text}], "b": True}
    return cls(**values)


@pytest.mark.parametrize("cls", RECORDS)
def test_every_field_comes_back(url, cls):
    record = filled(cls)
    for field in fields(cls):
        assert getattr(record, field.name) not in (None, field.default), field.name
    assert write_and_read(url, record) == record


HAVE_OPTIONAL = [cls for cls in RECORDS if cls is not MemoryRecord]


@pytest.mark.parametrize("cls", HAVE_OPTIONAL)
def test_every_optional_field_comes_back_as_none(url, cls):
    hints = get_type_hints(cls)
    absent = {name: None for name in hints if type(None) in get_args(hints[name])}
    assert absent
    record = replace(filled(cls), **absent)
    assert write_and_read(url, record) == record


def test_text_that_no_database_holds_is_replaced_and_kept(url, a_sample):
    bad = "a\x00b\ud83d🦜c"
    kept = write_and_read(
        url, a_sample(output=bad, error=bad, metadata={bad: [bad, {"x": bad}]})
    )
    good = "a␀b�🦜c"
    assert kept == a_sample(
        output=good, error=good, metadata={good: [good, {"x": good}]}
    )


def test_telemetry_with_such_text_is_kept_too(url, a_request):
    kept = write_and_read(url, a_request(error="\x00 \udfff"))
    assert kept.error == "␀ �"


def test_nan_is_none_or_nan(url, a_sample):
    kept = write_and_read(
        url, a_sample(score=math.nan, finished_at=math.nan, metadata={"x": math.nan})
    )
    assert kept.score is None
    assert math.isnan(kept.finished_at)
    assert kept.metadata == {"x": None}


def test_infinity_comes_back(url, a_request):
    kept = write_and_read(url, a_request(output_tokens_per_s=math.inf))
    assert kept.output_tokens_per_s == math.inf


def test_a_megabyte_of_text_comes_back(url, a_sample):
    record = a_sample(output="🦜" * 300_000)
    assert write_and_read(url, record) == record


class Odd:
    def __str__(self):
        return "odd\x00"


def test_json_keeps_what_it_can():
    numpy = pytest.importorskip("numpy")
    value = {
        1: (1, 2),
        "set": {3},
        "inf": math.inf,
        "int": numpy.int64(4),
        "float": numpy.float32(0.5),
        "odd": Odd(),
        "big": 2**70,
        "no": False,
    }
    assert clean_json(value) == {
        "1": [1, 2],
        "set": [3],
        "inf": None,
        "int": 4,
        "float": 0.5,
        "odd": "odd␀",
        "big": 2**70,
        "no": False,
    }


def test_good_text_is_not_touched():
    text = "plain, ␀, �, 🦜 and \x01"
    assert clean_text(text) is not None
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("mapping", "keys"),
    [
        (RUNS, 1),
        (SAMPLES, 1),
        (REQUESTS, 1),
        (WORKFLOWS, 1),
        (WORKFLOW_STEPS, 2),
        (MEMORIES, 1),
        (GPU_SAMPLES, 4),
        (HOST_SAMPLES, 3),
    ],
)
def test_the_tables_have_exactly_the_fields(mapping, keys):
    names = [field.name for field in fields(mapping.record)]
    assert list(mapping.table.columns.keys()) == names
    assert [column.name for column in mapping.table.primary_key] == names[:keys]
