"""What the numbers say, in words, whichever way it comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridray.evaluation.statistics import Estimate, paired_difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridray.evaluation.rollout import EpisodeTable


def verdict(tables: Mapping[str, Mapping[str, EpisodeTable]], *, ours: str, today: str) -> list[str]:
    """Compare `ours` with `today` and with the best other trained policy at each utility, by paired days.

    Args:
        tables: utility -> policy -> episodes, all policies of a utility on the same days.
        ours: the policy in question.
        today: what the utilities do now.
    """
    sentences = []
    for utility, policies in tables.items():
        mine, theirs = policies[ours], policies[today]
        share = paired_difference(mine["violation_share"] * 100.0, theirs["violation_share"] * 100.0)
        taps = paired_difference(mine["tap_operations"], theirs["tap_operations"])
        sentences.append(
            f"{utility}: against {today}, {ours} {_change(share, 'voltage violations', '% of node-steps', 3)} "
            f"and {_change(taps, 'tap steps', 'a day', 1)}."
        )
        rivals = {name: table for name, table in policies.items() if name not in {ours, today, "random", "droop"}}
        if rivals:
            best = max(rivals, key=lambda name: float(rivals[name].returns.mean()))
            gain = paired_difference(mine.returns, rivals[best].returns)
            word = "no clear difference to" if gain.low <= 0.0 <= gain.high else "above" if gain.low > 0 else "below"
            sentences.append(
                f"{utility}: return per day {word} the best policy trained on one utility ({best}): "
                f"{gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})."
            )
            sentences += [_rival(utility, ours, mine, name, table) for name, table in rivals.items()]
    return [sentence for sentence in sentences if sentence]


def _rival(utility: str, ours: str, mine: EpisodeTable, name: str, table: EpisodeTable) -> str:
    """Say where a policy trained on one utility has clearly fewer violations, and what that costs; else nothing."""
    share = paired_difference(table["violation_share"] * 100.0, mine["violation_share"] * 100.0)
    if share.high >= 0.0:
        return ""
    taps = paired_difference(table["tap_operations"], mine["tap_operations"])
    if taps.low > 0.0:
        price = f"at the price of {taps.mean:+.1f} tap steps a day ({taps.low:+.1f} to {taps.high:+.1f})"
        return f"{utility}: {name} has fewer violations than {ours} ({share.mean:+.3f} % of node-steps), {price}."
    return f"{utility}: {ours} does not beat {name}, which has {-share.mean:.3f} % fewer node-steps in violation."


def _change(e: Estimate, what: str, unit: str, decimals: int) -> str:
    interval = f"{e.mean:+.{decimals}f} {unit}, {e.low:+.{decimals}f} to {e.high:+.{decimals}f}"
    if e.low > 0.0:
        return f"has more {what} ({interval})"
    if e.high < 0.0:
        return f"has fewer {what} ({interval})"
    return f"shows no clear change in {what} ({interval})"
