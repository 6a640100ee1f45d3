"""Operation budgets, tap delays and protection: what may move now, and what trips when."""

from __future__ import annotations

import numpy as np
import pytest
from dss import DSS
from hypothesis import given
from hypothesis import strategies as st

from gridray.devices.protection import (
    INVERSE_CURVES,
    Relay,
    connected,
    inverse_time_s,
    loading,
    overload_s,
    step_relay,
    step_trip,
    thermal_image,
    voltage_trip,
)
from gridray.devices.regulator import TapTiming, fresh_timer, timed_taps
from gridray.devices.switching import (
    OperationLimits,
    can_operate,
    fresh_operations,
    new_day,
    operate,
    operations_left,
)


def one(*values: float) -> list[np.ndarray]:
    return [np.full((1, 1), value) for value in values]


def test_operations_end_with_the_budget_and_begin_again_at_midnight() -> None:
    limits, state = OperationLimits(*one(5.0, 0.0)), fresh_operations(1, 2)
    made = []
    for change in (3.0, -4.0, 1.0):
        moved, state = operate(limits, state, np.full((1, 2), change), 900.0)
        made.append(moved[0, 0])
    assert made == [3.0, -2.0, 0.0]
    assert operations_left(limits, state).tolist() == [[0.0, 0.0]]
    state = new_day(state, np.array([False, True]))
    assert operations_left(limits, state).tolist() == [[0.0, 5.0]]
    assert can_operate(limits, state).tolist() == [[False, True]]


def test_switch_rests_for_its_dead_time() -> None:
    # A capacitor of 300 s in steps of 60 s: closes at once, may open five steps later.
    limits, state = OperationLimits(*one(np.inf, 300.0)), fresh_operations(1, 1)
    made = []
    for change in (1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0):
        moved, state = operate(limits, state, np.full((1, 1), change), 60.0)
        made.append(moved[0, 0])
    assert made == [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0]


@given(st.lists(st.integers(-16, 16), min_size=1, max_size=30), st.integers(0, 20))
def test_no_sequence_of_wishes_exceeds_the_budget(changes: list[int], per_day: int) -> None:
    limits, state, total = OperationLimits(*one(float(per_day), 0.0)), fresh_operations(1, 1), 0.0
    for change in changes:
        made, state = operate(limits, state, np.full((1, 1), float(change)), 1.0)
        assert made[0, 0] * change >= 0.0
        total += abs(made[0, 0])
    assert total == min(per_day, sum(abs(change) for change in changes))


def taps(wishes: list[float], step_s: float) -> list[float]:
    timing, timer = TapTiming(*one(30.0, 5.0)), fresh_timer(1, 1)
    made = []
    for wish in wishes:
        moved, timer = timed_taps(timing, timer, np.full((1, 1), wish), step_s)
        made.append(moved[0, 0])
    return made


def test_taps_wait_for_their_delays() -> None:
    # First tap after 30 s, then every 5 s: in steps of 10 s none, none, one, two, one that is left.
    assert taps([4.0, 4.0, 4.0, 3.0, 1.0], 10.0) == [0.0, 0.0, 1.0, 2.0, 1.0]
    # In a quarter of an hour all that is wanted.
    assert taps([-16.0], 900.0) == [-16.0]
    # After a visit to the band, or a change of side, the delay begins anew.
    assert taps([4.0, 4.0, 0.0, 4.0, 4.0, 4.0], 10.0) == [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert taps([4.0, 4.0, -4.0, -4.0, -4.0], 10.0) == [0.0, 0.0, 0.0, 0.0, -1.0]


def test_taps_move_when_opendss_moves_them() -> None:
    engine = DSS.NewContext()
    for command in """
        new circuit.source basekv=7.2 phases=1 pu=0.9 bus1=a r1=0.001 x1=0.001 r0=0.001 x0=0.001
        new transformer.t phases=1 windings=2 buses=(a,b) kvs=(7.2,7.2) kvas=(1000,1000) xhl=0.01 %loadloss=0.001
        new regcontrol.r transformer=t winding=2 vreg=120 band=2 ptratio=60 delay=30 tapdelay=5 maxtapchange=1
        new load.l phases=1 bus1=b kv=7.2 kw=1 kvar=0 model=2
        set voltagebases=[12.47 7.2]
        calcvoltagebases
        set maxcontroliter=100 controlmode=off
        solve
        set mode=duty stepsize=1s number=1 controlmode=time hour=0 sec=0
    """.strip().splitlines():
        engine.Text.Command = command.strip()
    transformers = engine.ActiveCircuit.Transformers
    theirs = []
    for _ in range(80):
        engine.ActiveCircuit.Solution.Solve()
        transformers.Name, transformers.Wdg = "t", 2
        theirs.append(round((transformers.Tap - 1.0) / 0.00625))
    timing, timer, done, ours = TapTiming(*one(30.0, 5.0)), fresh_timer(1, 1), 0.0, []
    for _ in range(80):
        # What an interval's end brings acts in the next one's solution. It wants 16 taps: 0.9 x 1.1 = 0.99 pu.
        ours.append(done)
        made, timer = timed_taps(timing, timer, np.full((1, 1), 16.0 - done), 1.0)
        done += made[0, 0]
    assert theirs[-1] == 10
    assert ours == theirs


@given(st.integers(1, 16), st.sampled_from([1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0]))
def test_taps_do_not_depend_on_the_step(wanted: int, step_s: float) -> None:
    # At 120 s 1 + floor(90 / 5) = 19 taps were due, so that all are made; at 60 s 7.
    num_steps = int(60.0 / step_s)
    timing, timer, left = TapTiming(*one(30.0, 5.0)), fresh_timer(1, 1), float(wanted)
    for _ in range(num_steps):
        made, timer = timed_taps(timing, timer, np.full((1, 1), left), step_s)
        left -= made[0, 0]
    assert left == max(wanted - 7, 0)


@pytest.mark.parametrize(("kind", "expected_s"), [("standard", 10.029), ("very", 13.5), ("extremely", 26.667)])
def test_relay_trips_after_the_time_of_its_curve(kind: str, expected_s: float) -> None:
    # Times at twice the pickup and multiplier 1, as IEC 60255-151 prints its curves.
    relay = Relay(*one(100.0, 1.0, *INVERSE_CURVES[kind]))
    current = np.full((1, 1), 200.0)
    assert inverse_time_s(relay, current)[0, 0] == pytest.approx(expected_s, abs=1e-3)
    progress, num_steps = np.zeros((1, 1)), 0
    while progress[0, 0] < 1.0:
        progress, num_steps = step_relay(relay, progress, current, 0.01), num_steps + 1
    assert num_steps * 0.01 == pytest.approx(expected_s, abs=0.011)
    assert step_relay(relay, progress, np.full((1, 1), 100.0), 0.01)[0, 0] == 0.0
    assert inverse_time_s(relay, np.full((1, 1), 99.0))[0, 0] == np.inf


def test_overload_counts_and_heat_rises_to_the_square_of_loading() -> None:
    share = loading(np.array([[150.0, 90.0]]), np.full((1, 1), 100.0))
    np.testing.assert_allclose(share, [[1.5, 0.9]])
    counted = overload_s(overload_s(np.zeros((1, 2)), share, 60.0), share, 60.0)
    assert counted.tolist() == [[120.0, 0.0]]
    assert overload_s(counted, np.ones((1, 2)), 60.0).tolist() == [[0.0, 0.0]]
    # From cold at 1.5: heat 1 after tau ln(1.5^2 / (1.5^2 - 1)) (IEC 60255-149, no load before).
    limit_s = 600.0 * np.log(2.25 / 1.25)
    heat = np.zeros((1, 2))
    for _ in range(10):
        heat = thermal_image(heat, share, np.full((1, 1), 600.0), limit_s / 10.0)
    assert heat[0] == pytest.approx([1.0, 0.81 * (1.0 - 1.25 / 2.25)])


@pytest.mark.parametrize(
    ("category", "v_pu", "expected_s"),
    [
        ("II", 1.15, 2.0),
        ("II", 0.6, 10.0),
        ("II", 0.8, np.inf),
        ("III", 1.15, 13.0),
        ("III", 0.8, 21.0),
        ("III", 0.4, 2.0),
        ("III", 1.1, np.inf),
    ],
)
def test_voltage_trips_after_the_clearing_time_of_ieee_1547(category: str, v_pu: float, expected_s: float) -> None:
    trip, state, time_s = voltage_trip(category), connected(1, 1), 0.0
    while not state.is_tripped[0, 0] and time_s < 40.0:
        state, time_s = step_trip(trip, state, *one(v_pu, v_pu), 0.5), time_s + 0.5
    assert (time_s if state.is_tripped[0, 0] else np.inf) == expected_s


def test_device_returns_after_five_good_minutes_without_a_break() -> None:
    trip, state = voltage_trip("III"), connected(1, 1)
    state = step_trip(trip, state, *one(1.0, 1.3), 1.0)
    was_out = []
    for v in (1.0, 1.0, 1.06, 1.0, 1.0, 1.0, 1.0, 1.0):
        state = step_trip(trip, state, *one(v, v), 60.0)
        was_out.append(bool(state.is_tripped[0, 0]))
    assert was_out == [True] * 7 + [False]
