"""The clock of a run's arms while they generate: made ready together, timed in turns on the same texts."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from icd_lib.decoding.base import Decoder
from icd_lib.decoding.bytes import bytes_per_token
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.experiment.arms import DENSE
from icd_lib.measure.conditions import disturbances, watched
from icd_lib.measure.decode import change_figure, measure_decoding, time_figure
from icd_lib.metric import Figure, not_measured
from icd_lib.records.generation import DecodeArm, DecodeShape
from icd_lib.workloads.model.context import Context

WARMUP = 2  # tokens of a round that are not kept
Arms = Mapping[str, tuple[str, Callable[[], Decoder]]]  # arm → what it is, and how it is made ready


@dataclass(frozen=True, eq=False)
class Clock:
    """steps, rounds: tokens of a round, and rounds of prompts; against: arm → others that its tokens are compared with
    besides dense; elsewhere: arm → why it is not timed in this run.
    """

    context: Context
    steps: int
    rounds: int
    against: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def shape(self, arms: Arms, batch: int, length: int, held: Callable[[str], float]) -> DecodeShape:
        """Every arm on `batch` prompts of `length` tokens. held(arm): tokens of a text that are in its cache."""
        ids = self.context.fixed(batch, length + self.steps + WARMUP)["input_ids"].numpy()
        missing: dict[str, str] = dict(self.elsewhere)
        seed, resamples = self.context.get("seed"), self.context.get("measure.bootstrap")
        with ExitStack() as stack:
            ready, labels = {}, {}
            for name, (label, make) in arms.items():
                try:
                    decoder = stack.enter_context(closing(make()))
                    decoder.warm(ids[:, :length])
                except (ResourceError, ConfigError) as error:
                    missing[name] = str(error)
                else:
                    ready[name], labels[name] = decoder, label
            self.context.progress(f"decoding {batch} x {length}: {', '.join(ready)}")
            with watched() as conditions:
                times = measure_decoding(
                    ready, ids, context=length, steps=self.steps, rounds=self.rounds, warmup=WARMUP, seed=seed
                )
            found = {}
            for name, its in times.items():
                dense = times[DENSE]
                found[name] = DecodeArm(
                    label=labels[name],
                    first_ms=time_figure(its.first_ms, seed=seed, resamples=resamples),
                    step_ms=time_figure(its.step_ms, seed=seed, resamples=resamples),
                    first_vs_dense=change_figure(its.first_ms, dense.first_ms, seed=seed, resamples=resamples),
                    step_vs_dense=change_figure(its.step_ms, dense.step_ms, seed=seed, resamples=resamples),
                    bytes_per_token=_bytes(ready[name], batch, held(name)),
                    step_vs={
                        other: change_figure(its.step_ms, times[other].step_ms, seed=seed, resamples=resamples)
                        for other in self.against.get(name, ())
                        if other in times
                    },
                )
        return DecodeShape(batch=batch, context=length, arms=found, missing=missing, warnings=disturbances(conditions))


def _bytes(decoder: Decoder, batch: int, held: float) -> Figure:
    if decoder.weight_bytes is None or decoder.cache_bytes is None:
        return not_measured("bytes", "the runtime does not say what it keeps")
    return bytes_per_token(decoder.weight_bytes, decoder.cache_bytes, batch, held, decoder.state_bytes)
