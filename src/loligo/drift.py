"""Raise an alarm when a department's images are no longer what they were: a conformal test martingale.

Each study is ranked among all before it, which gives p-values that are independent and uniform as long as the studies
are exchangeable (Vovk, Nouretdinov & Gammerman, "Testing exchangeability on-line", ICML 2003). A gambler bets against
that, on small or on large p-values. His capital exceeds 1 / alpha ever with a probability of at most alpha (Ville's
inequality), however many studies there are.

**What the null is.** Studies are exchangeable with those of the reference window, and so must be of the same kind: the
department's own consecutive, unselected studies, diseased ones among them. Against a reference of normals alone the
first week's patients would be an alarm. An alarm says that something has changed, exposure, scanner, processing or
patients, not what; and that thresholds may not hold: look, and calibrate again ('loligo recalibrate').
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loligo.config import check_forms, one_line
from loligo.files import write_json

Values = Sequence[float] | npt.NDArray[np.float64]

ALPHA = 0.01
"""Chance of a false alarm, ever."""
LEAST = 20
"""Studies of a reference window, at least; 100 and more find smaller changes."""
BETS = (-2.0, -1.0, 1.0, 2.0)
"""Slopes of 1 + slope (p - 1/2): below 0 for scores that become higher, above for lower ones."""
JUMP = 0.001
"""Chance that a sleeping gambler begins to bet before a study, and that one who bets stops: a change in a thousand."""
FORMS = {"streams": dict, "weights": str, "alpha": float, "seed": int}


@dataclass
class Stream:
    """One measure of all studies so far, and the capital of who bets on its change."""

    values: list[float]
    """All so far, ascending."""
    capital: list[float] = field(default_factory=lambda: [1.0, *[0.0] * len(BETS)])
    """Parts, of sum 1, of the sleeping gambler and of each of `BETS`."""
    wealth: float = 0.0
    """Natural logarithm of the capital, of 0 at the beginning."""
    highest: float = 0.0
    """What ``wealth`` ever was at most."""

    def add(self, value: float, chance: float) -> float:
        """Rank a value among all before it, bet, and return its p-value; ``chance`` in [0, 1) breaks ties.

        Small is a value higher than most.
        """
        low, high = bisect.bisect_left(self.values, value), bisect.bisect_right(self.values, value)
        p = (len(self.values) - high + chance * (high - low + 1)) / (len(self.values) + 1)
        self.values.insert(high, value)
        asleep, awake = self.capital[0], self.capital[1:]
        parts = [(1 - JUMP) * asleep + JUMP * sum(awake)]
        parts += [
            ((1 - JUMP) * part + JUMP * asleep / len(BETS)) * (1 + bet * (p - 0.5))
            for part, bet in zip(awake, BETS, strict=True)
        ]
        total = sum(parts)
        self.capital = [part / total for part in parts]
        self.wealth += math.log(total)
        self.highest = max(self.highest, self.wealth)
        return p

    @property
    def way(self) -> str:
        """Say which change the bets are on."""
        pairs = list(zip(self.capital[1:], BETS, strict=True))
        return "higher" if sum(c for c, b in pairs if b < 0) >= sum(c for c, b in pairs if b > 0) else "lower"


@dataclass
class Drift:
    """What of a department's studies is followed; kept in one JSON file."""

    streams: dict[str, Stream]
    """By name of the measure."""
    weights: str = ""
    """SHA-256 of the weights that score; of others no score can be compared."""
    alpha: float = ALPHA
    """Chance of a false alarm, ever; divided by the number of streams (Bonferroni)."""
    seed: int = 0
    """Of the numbers that break ties, with the count of studies."""

    @classmethod
    def begin(cls, reference: Mapping[str, Values], weights: str = "", alpha: float = ALPHA) -> Drift:
        """Begin with the measures of the reference window, each (n,), n at least `LEAST`; see above what it must be.

        Raises ValueError for fewer studies, numbers that are not finite, or ``alpha`` outside (0, 1).
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1, such as {ALPHA}")
        for name, values in reference.items():
            if len(values) < LEAST:
                raise ValueError(f"{len(values)} studies are too few for a reference window; give {LEAST} or more")
            _check(name, values)
        return cls({name: Stream(sorted(map(float, values))) for name, values in reference.items()}, weights, alpha)

    def add(self, study: Mapping[str, float]) -> None:
        """Add one study by its measures; ValueError where one is missing or not finite, and nothing is added."""
        for name in self.streams:
            if name not in study:
                raise ValueError(f"the study has no {name}; it has {', '.join(study)}")
            _check(name, [study[name]])
        chances = np.random.default_rng([self.seed, self.count]).random(len(self.streams))
        for (name, stream), chance in zip(self.streams.items(), chances, strict=True):
            stream.add(float(study[name]), float(chance))

    @property
    def count(self) -> int:
        """Count the studies, those of the reference window among them."""
        return len(next(iter(self.streams.values())).values)

    @property
    def limit(self) -> float:
        """Return the logarithm of the capital from which a stream raises the alarm."""
        return math.log(len(self.streams) / self.alpha)

    @property
    def alarms(self) -> dict[str, str]:
        """Return the measures that have changed, each with "higher" or "lower"; an alarm stays."""
        return {name: one.way for name, one in self.streams.items() if one.highest >= self.limit}

    @property
    def told(self) -> str:
        """Say in one line how things stand."""
        if self.alarms:
            said = ", ".join(f"{name} has become {way}" for name, way in self.alarms.items())
            return f"drift: {said}; look what has changed, and calibrate again on images of now"
        name, most = max(self.streams.items(), key=lambda one: one[1].wealth)
        evidence, least = math.exp(most.wealth), math.exp(self.limit)
        return f"no drift: the evidence is {evidence:.2g} at most ({name}); an alarm begins at {least:.0f}"

    def save(self, path: Path) -> None:
        """Write JSON, the old file or the new one whatever happens."""
        write_json(vars(self) | {"streams": {name: vars(one) for name, one in self.streams.items()}}, path)

    @classmethod
    def load(cls, path: Path) -> Drift:
        """Read what `save` wrote; ValueError, which names the file, where it is something else."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            check_forms(values, FORMS)
            found = cls(**values | {"streams": {name: _stream(name, one) for name, one in values["streams"].items()}})
            if len({len(one.values) for one in found.streams.values()}) != 1 or not 0 < found.alpha < 1:
                raise ValueError("its streams differ in length, or alpha is not between 0 and 1")
            return found
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is no state of a drift alarm ({one_line(error)}); begin anew") from error


def _check(name: str, values: Values) -> None:
    if not np.isfinite(np.asarray(values, np.float64)).all():
        raise ValueError(f"{name} is not a finite number in one of {len(values)} studies")


def _stream(name: str, values: dict[str, Any]) -> Stream:
    """Return a stream as it was written; ValueError for one that no betting leads to."""
    stream = Stream(**values)
    _check(name, [*stream.values, *stream.capital, stream.wealth, stream.highest])
    if stream.values != sorted(stream.values) or len(stream.capital) != len(BETS) + 1 or min(stream.capital) < 0:
        raise ValueError(f"the stream {name} does not hold ascending values and {len(BETS) + 1} parts of a capital")
    return stream
