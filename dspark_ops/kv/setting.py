"""One setting of everything that the pool's capacity depends on, from a site and the command line."""

from __future__ import annotations

from pathlib import Path

from dspark_ops.config.engine_arguments import take_apart
from dspark_ops.config.load import LoadedSite
from dspark_ops.errors import ConfigError
from dspark_ops.kv.caches import LayerCache, Model
from dspark_ops.kv.geometry import (
    FLASH_0731,
    Geometry,
    PlainGeometry,
    V4Geometry,
    element_bytes_of,
    geometry_of,
    read_config,
)
from dspark_ops.kv.plan import PLANNER_RELEASE, Capacity, Layout, in_flight
from dspark_ops.kv.records import RECORDS, Record, record_named, record_of_dtype

#: vLLM's platform default for a plain cache; V4's is in its geometry.
_PLAIN_BLOCK_TOKENS = {True: 16, False: 128}


class Levers(Model):
    """What the command line changes; None leaves the site's own."""

    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    asynchronous: bool | None = None
    record: str | None = None
    config: Path | None = None
    draft_config: Path | None = None


class Setting(Model):
    """One setting. max_num_batched_tokens: None where no cache depends on it. record: None for a plain cache.

    element_bytes, block_tokens: of a plain cache. ranks: over which plain heads are divided. drafting: whether draft
    layers have caches.
    """

    model: str
    geometry: Geometry
    record: Record | None
    max_num_batched_tokens: int | None
    asynchronous: bool
    max_model_len: int
    ranks: int
    drafting: bool
    element_bytes: int | None = None
    block_tokens: int
    notes: tuple[str, ...] = ()

    @property
    def in_flight_tokens(self) -> int:
        """F; 0 where no cache has a window and none depends on it."""
        if self.max_num_batched_tokens is None:
            return 0
        return in_flight(self.max_num_batched_tokens, asynchronous=self.asynchronous)

    def layers(self) -> tuple[LayerCache, ...]:
        """The caches of one rank."""
        if isinstance(self.geometry, V4Geometry):
            return self.geometry.layers(self.record or RECORDS["fp8"], drafting=self.drafting)
        return self.geometry.layers(
            ranks=self.ranks, element_bytes=self.element_bytes or 0, block_tokens=self.block_tokens
        )

    def capacity(self, pool_bytes: int) -> Capacity:
        """What a pool of that size holds at this setting."""
        split = self.record.split_states if self.record else 1
        return Layout.of(self.layers(), split_states=split).capacity(
            pool_bytes, max_model_len=self.max_model_len, in_flight_tokens=self.in_flight_tokens
        )


def setting_of(loaded: LoadedSite, levers: Levers) -> Setting:
    """The site's setting under the levers.

    Raises:
        ConfigError: the model, the record or a figure that the plan needs is not known.
    """
    site, profile = loaded.site, loaded.profile
    words = (*profile.serve_args, *site.serve.extra_args)
    notes: list[str] = []
    if profile.vllm != PLANNER_RELEASE:
        notes.append(f"the arithmetic is that of vLLM {PLANNER_RELEASE}; profile {profile.name} runs {profile.vllm}")
    config = None if levers.config is None else read_config(levers.config)
    if levers.config is not None and config is not None:
        geometry, model = geometry_of(config, str(levers.config)), str(levers.config)
    elif profile.gpu:
        geometry, model = FLASH_0731, "DeepSeek V4 Flash 0731, built in"
    else:
        raise ConfigError(
            f"profile {profile.name} serves a model whose layers are not known here",
            hint="give its config.json: `--config FILE`",
        )
    max_model_len = levers.max_model_len or site.serve.max_model_len
    batched = levers.max_num_batched_tokens or site.serve.max_num_batched_tokens
    asynchronous = _asynchronous(words) if levers.asynchronous is None else levers.asynchronous
    method = site.serve.speculative.method
    if method == "mtp":
        notes.append("the cache of the MTP layer is not counted: fewer tokens will fit")
    common = {
        "model": model,
        "max_model_len": max_model_len,
        "asynchronous": asynchronous,
        "ranks": 2,
        "notes": tuple(notes),
    }
    if isinstance(geometry, V4Geometry):
        if batched is None:
            raise ConfigError(
                "max_num_batched_tokens is not set, and vLLM's own default depends on the device",
                hint="set serve.max_num_batched_tokens, or give --max-num-batched-tokens",
            )
        record = (
            record_named(levers.record)
            if levers.record
            else record_of_dtype(site.serve.kv_cache_dtype, lane=profile.image.lane)
        )
        return Setting.model_validate(
            {
                **common,
                "geometry": geometry,
                "record": record,
                "max_num_batched_tokens": batched,
                "drafting": method == "dspark",
                "block_tokens": _block_tokens(words, default=256, only=256),
            }
        )
    if levers.record is not None:
        raise ConfigError("--record chooses a layout of DeepSeek V4, and the model is another one")
    if site.serve.kv_cache_dtype != "auto":
        raise ConfigError(
            f"serve.kv_cache_dtype {site.serve.kv_cache_dtype!r} of a plain cache is not planned",
            hint="kv_cache_dtype auto, or ask vLLM's own log",
        )
    return Setting.model_validate(
        {
            **common,
            "geometry": _with_draft(geometry, levers, method),
            "record": None,
            "max_num_batched_tokens": batched,
            "drafting": method == "draft_model",
            "element_bytes": element_bytes_of(_value(words, "--dtype") or "auto", config or {}),
            "block_tokens": _block_tokens(words, default=_PLAIN_BLOCK_TOKENS[profile.gpu], only=None),
        }
    )


def _with_draft(geometry: PlainGeometry, levers: Levers, method: str) -> PlainGeometry:
    if method != "draft_model":
        return geometry
    if levers.draft_config is None:
        raise ConfigError(
            "the site drafts with a model of its own, whose layers are cached too",
            hint="give its config.json: `--draft-config FILE`",
        )
    draft = geometry_of(read_config(levers.draft_config), str(levers.draft_config))
    if not isinstance(draft, PlainGeometry):
        raise ConfigError(f"{levers.draft_config}: the draft of a plain model has plain layers, found {draft.kind}")
    return geometry.model_copy(update={"draft": draft})


def _asynchronous(words: tuple[str, ...]) -> bool:
    """Whether scheduling is asynchronous. vLLM 0.32.0 turns it on for these models unless it is told otherwise."""
    names = [option.name for option in take_apart(words)[0]]
    told = [name for name in names if name in {"--async-scheduling", "--no-async-scheduling"}]
    return not told or told[-1] == "--async-scheduling"


def _value(words: tuple[str, ...], name: str) -> str | None:
    values = [option.values for option in take_apart(words)[0] if option.name == name and option.values]
    return values[-1][0] if values else None


def _block_tokens(words: tuple[str, ...], *, default: int, only: int | None) -> int:
    text = _value(words, "--block-size")
    if text is None:
        return default
    if not text.isdecimal() or int(text) == 0 or (only is not None and int(text) != only):
        raise ConfigError(f"--block-size={text}: expected {only or 'a whole number'} for this model")
    return int(text)
