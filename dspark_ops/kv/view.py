"""`kv plan` as one document: the setting, the pool, what it holds, the levers, and how a boot compares."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import ConfigError, DsparkError, NoVerdictError
from dspark_ops.exitcodes import ExitCode
from dspark_ops.kv.bootlog import parse_boot_log
from dspark_ops.kv.caches import Model
from dspark_ops.kv.compare import Comparison, compare, pool_of_log
from dspark_ops.kv.geometry import V4Geometry
from dspark_ops.kv.levers import MILLION_TOKENS, Row, lever_rows
from dspark_ops.kv.memory import MemoryOptions, Pool, pool_of
from dspark_ops.kv.plan import PLANNER_RELEASE, Capacity
from dspark_ops.kv.records import Carried
from dspark_ops.kv.release import ReleaseAnswer, ask_release
from dspark_ops.kv.setting import Levers, Setting, setting_of

SCHEMA_ID: Final = "dspark-ops/kv-plan/v1"


class RecordView(Model):
    """The record that is planned, by its honest name."""

    name: str
    label: str
    carried: Carried


class SettingView(Model):
    """The setting that is planned. max_num_batched_tokens: None where nothing depends on it."""

    model: str
    record: RecordView | None
    max_num_batched_tokens: int | None
    asynchronous: bool
    in_flight_tokens: int
    max_model_len: int
    draft_layers: bool


class KvPlanView(BaseModel):
    """The document. Everything is of one node: both hold the same blocks.

    low_tokens, high_tokens: what rounding of the pool leaves open. release: the answer of the release's own planner;
    release_trouble: why there is none although it was asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["dspark-ops/kv-plan/v1"] = Field(default=SCHEMA_ID, alias="schema")
    site: str
    profile: str
    planner_release: str
    setting: SettingView
    pool: Pool
    capacity: Capacity
    low_tokens: int
    high_tokens: int
    concurrency_1m: float
    levers: tuple[Row, ...]
    boot: Comparison | None = None
    release: ReleaseAnswer | None = None
    release_trouble: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """Bad: a boot or the release contradicts the plan, or one request does not fit. None: no answer was had."""
        contradicted = (self.boot is not None and not self.boot.agrees) or (
            self.release is not None and not self.release.agrees
        )
        if contradicted or not self.capacity.fits:
            return ExitCode.VERDICT_BAD
        return ExitCode.NO_VERDICT if self.release_trouble is not None else ExitCode.OK


def build_view(
    loaded: LoadedSite,
    levers: Levers,
    memory: MemoryOptions,
    *,
    boot_log: str | None = None,
    image: str | None = None,
) -> KvPlanView:
    """Plan the site's cache. boot_log: a log's text to compare with. image: one whose own planner is asked too.

    Raises:
        ConfigError: something that the plan needs is not known.
        NoVerdictError: the boot log holds no figure.
    """
    boot = None
    if boot_log is not None:
        boot = parse_boot_log(boot_log)
        if boot is None:
            raise NoVerdictError(
                "the log holds no size of a KV cache; expected a line as "
                "'GPU KV cache size: 1,809,462 tokens, Maximum concurrency for 1,048,576 tokens per request: 1.73x'",
                hint="give the head's log from its start: the line is printed once, before the first request",
            )
    setting = setting_of(loaded, levers)
    try:
        pool = pool_of(memory, loaded.site.serve)
    except ConfigError:
        logged = None if boot is None else pool_of_log(boot)
        if logged is None or memory != MemoryOptions():
            raise
        pool = logged
    capacity = setting.capacity(pool.pool_bytes)
    release: ReleaseAnswer | None = None
    trouble: str | None = None
    if image is not None:
        try:
            release = ask_release(image, setting, capacity)
        except DsparkError as error:
            trouble = error.message if error.hint is None else f"{error.message} ({error.hint})"
    return KvPlanView(
        site=loaded.site.name,
        profile=loaded.profile.name,
        planner_release=PLANNER_RELEASE,
        setting=_shown(setting),
        pool=pool,
        capacity=capacity,
        low_tokens=setting.capacity(pool.low_bytes).tokens,
        high_tokens=setting.capacity(pool.high_bytes).tokens,
        concurrency_1m=setting.model_copy(update={"max_model_len": MILLION_TOKENS})
        .capacity(pool.pool_bytes)
        .concurrency,
        levers=lever_rows(setting, pool.pool_bytes),
        boot=None if boot is None else compare(boot, setting, pool),
        release=release,
        release_trouble=trouble,
        notes=_notes(setting, pool),
    )


def _shown(setting: Setting) -> SettingView:
    record = setting.record
    return SettingView(
        model=setting.model,
        record=None if record is None else RecordView(name=record.name, label=record.label, carried=record.carried),
        max_num_batched_tokens=setting.max_num_batched_tokens,
        asynchronous=setting.asynchronous,
        in_flight_tokens=setting.in_flight_tokens,
        max_model_len=setting.max_model_len,
        draft_layers=setting.drafting,
    )


def _notes(setting: Setting, pool: Pool) -> tuple[str, ...]:
    notes = list(setting.notes)
    if isinstance(setting.geometry, V4Geometry):
        notes.append("bytes are per node: the one latent head is on both, so two nodes hold no more tokens than one")
    if setting.record is not None and setting.record.carried == "planned":
        notes.append(f"record {setting.record.name} is arithmetic alone: no build of this tool stores it")
    if pool.sureness == "estimate":
        notes.append("the pool is an estimate, and so is everything below it; vLLM measures its own at the start")
    notes.append("tokens change with max_model_len while the bytes do not (vLLM issue 51041): compare blocks")
    return tuple(notes)
