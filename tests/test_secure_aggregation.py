"""Secure sums: exact whoever drops out, uniform to who looks at one member, closed to a coordinator that cheats."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gridray.errors import ConfigError, FederationError
from gridray.federated.identity import public_key
from gridray.federated.privacy.keys import keystream, seal, unseal
from gridray.federated.privacy.quantisation import widest
from gridray.federated.privacy.secure_aggregation import SecureSum, WeightedCodec, secure_sum
from gridray.federated.privacy.secure_client import SecureClient, add_pair_mask
from gridray.federated.privacy.secure_messages import KeyAdvert, Session, UnmaskRequest, default_threshold
from gridray.federated.privacy.secure_server import SecureServer
from gridray.federated.privacy.shamir import PRIME, reconstruct, split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

STAGES = ("advertise", "share_keys", "mask", "confirm", "unmask")
# A right sum or a uniform sample fails such a test once in a million runs.
RARE = 1e-6


class Members:
    """All members in this process, some of whom fall silent from a stage on."""

    def __init__(self, num_members: int, num_words: int, *, threshold: int | None = None, word_bits: int = 32) -> None:
        names = [f"utility{index:02d}" for index in range(num_members)]
        self.identities = {name: os.urandom(32) for name in names}
        self.session = Session(
            run="test",
            round=3,
            members={name: public_key(secret) for name, secret in self.identities.items()},
            threshold=default_threshold(num_members) if threshold is None else threshold,
            num_words=num_words,
            word_bits=word_bits,
        )
        self.clients = {name: SecureClient(self.session, name, self.identities[name]) for name in names}
        rng = np.random.default_rng(num_members)
        kind = {16: np.uint16, 32: np.uint32, 64: np.uint64}[word_bits]
        self.words = {name: rng.integers(2**word_bits, size=num_words, dtype=kind) for name in names}
        self.silent_from: dict[str, int] = {}
        self.masked: dict[str, NDArray[Any]] = {}

    def __call__(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Call the members, as a `Channel` does."""
        answers = {}
        for name, given_arguments in arguments.items():
            if self.silent_from.get(name, len(STAGES)) <= STAGES.index(method):
                continue
            vector = (self.words[name],) if method == "mask" else ()
            answers[name] = getattr(self.clients[name], method)(*given_arguments, *vector)
        if method == "mask":
            self.masked = {name: message.words for name, message in answers.items()}
        return answers

    def sum_of(self, names: tuple[str, ...]) -> NDArray[Any]:
        """Return the plain sum of these members' vectors."""
        return np.sum([self.words[name] for name in names], axis=0, dtype=self.words[names[0]].dtype)

    def up_to(self, stage: int) -> SecureServer:
        """Run so many stages and return the server."""
        server = SecureServer(self.session)
        outgoing: Any = None
        for index, method in enumerate(STAGES[:stage]):
            if index == 0:
                arguments: dict[str, tuple[Any, ...]] = dict.fromkeys(self.clients, ())
            elif isinstance(outgoing, dict):
                arguments = {name: (part,) for name, part in outgoing.items()}
            else:
                arguments = dict.fromkeys(self.clients, (outgoing,))
            for name, message in self(method, arguments).items():
                server.receive(name, message)
            close = (server.adverts, server.boxes, server.survivors, server.request, server.total)[index]
            outgoing = close()
        self.outgoing = outgoing
        return server


def run(members: Members) -> SecureSum:
    return secure_sum(members.session, members)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), num_members=st.integers(3, 9), word_bits=st.sampled_from([16, 32, 64]))
def test_sum_is_exact_whoever_drops_out_at_whatever_stage(
    data: st.DataObject, num_members: int, word_bits: int
) -> None:
    members = Members(num_members, num_words=17, word_bits=word_bits)
    names = sorted(members.clients)
    num_dropped = data.draw(st.integers(0, num_members - members.session.threshold))
    dropped = data.draw(st.permutations(names))[:num_dropped]
    members.silent_from = {name: data.draw(st.integers(0, len(STAGES) - 1)) for name in dropped}
    result = run(members)
    # Who falls silent before its masked input is not in the sum; who does after it is.
    expected = tuple(name for name in names if members.silent_from.get(name, 9) > STAGES.index("mask"))
    assert result.survivors == expected
    np.testing.assert_array_equal(result.words, members.sum_of(expected))
    assert result.absent.keys() == set(names) - set(expected)


@pytest.mark.parametrize("stage", range(len(STAGES)), ids=STAGES)
def test_one_member_dropping_at_each_stage_leaves_the_sum_of_the_others(stage: int) -> None:
    members = Members(5, num_words=1000)
    members.silent_from = {"utility02": stage}
    result = run(members)
    assert ("utility02" in result.survivors) == (stage > STAGES.index("mask"))
    np.testing.assert_array_equal(result.words, members.sum_of(result.survivors))


@pytest.mark.parametrize("stage", range(len(STAGES)), ids=STAGES)
def test_fewer_than_the_threshold_end_the_round_with_a_clear_error(stage: int) -> None:
    members = Members(5, num_words=4)
    members.silent_from = {"utility00": stage, "utility04": stage}
    with pytest.raises(
        FederationError, match=r"of 3 members arrived \(utility01, utility02, utility03\), the threshold"
    ):
        run(members)


@pytest.mark.parametrize("words", [np.zeros(40_000, np.uint32), np.full(40_000, 7, np.uint32)], ids=["zeros", "sevens"])
def test_what_the_coordinator_holds_of_one_member_is_uniform(words: NDArray[np.uint32]) -> None:
    members = Members(4, num_words=len(words))
    members.words = dict.fromkeys(members.clients, words)
    run(members)
    for masked in members.masked.values():
        counts = np.bincount(masked.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > RARE
        assert stats.kstest(masked / 2.0**32, "uniform").pvalue > RARE
        # Neighbouring words do not depend on each other either.
        pairs = np.bincount((masked[::2] >> 28) * 16 + (masked[1::2] >> 28), minlength=256)
        assert stats.chisquare(pairs).pvalue > RARE
    first, second = list(members.masked.values())[:2]
    assert stats.kstest((first - second) / 2.0**32, "uniform").pvalue > RARE


def test_uniformity_test_finds_words_without_a_mask() -> None:
    few = np.random.default_rng(0).normal(scale=2**28, size=40_000).astype(np.int64).astype(np.uint32)
    assert stats.kstest(few / 2.0**32, "uniform").pvalue < RARE


def test_late_input_stays_hidden_after_its_pairwise_masks_were_removed() -> None:
    members = Members(5, num_words=20_000)
    late = "utility03"
    members.words[late] = np.zeros(20_000, np.uint32)
    server = members.up_to(2)
    inputs = members("mask", {name: (boxes,) for name, boxes in members.outgoing.items()})
    for name, message in inputs.items():
        if name != late:
            server.receive(name, message)
    survivors = server.survivors()
    with pytest.raises(FederationError, match="too early or too late: confirmations are taken now"):
        server.receive(late, inputs[late])
    for name, message in members("confirm", dict.fromkeys(survivors, (survivors,))).items():
        server.receive(name, message)
    for name, message in members("unmask", dict.fromkeys(survivors, (server.request(),))).items():
        server.receive(name, message)
    np.testing.assert_array_equal(server.total(), members.sum_of(survivors))
    # The coordinator now knows the late member's mask key and takes all its pairwise masks off.
    client = members.clients[late]
    bare = inputs[late].words.copy()
    lifted = np.zeros_like(bare)
    for other in survivors:
        add_pair_mask(lifted, members.session, client._mask_key, late, client._adverts[other])
    bare -= lifted
    np.testing.assert_array_equal(bare, keystream(client._seed, len(bare), np.uint32))
    assert stats.kstest(bare / 2.0**32, "uniform").pvalue > RARE


def test_coordinator_that_asks_for_both_secrets_of_a_member_is_refused() -> None:
    members = Members(5, num_words=4)
    members.up_to(4)
    request: UnmaskRequest = members.outgoing
    greedy = replace(request, dropped=("utility02",))
    with pytest.raises(FederationError, match="both secrets of 'utility02', which would bare its update"):
        members.clients["utility00"].unmask(greedy)


def test_coordinator_that_asks_twice_with_other_lists_is_refused() -> None:
    members = Members(5, num_words=4)
    members.up_to(4)
    request: UnmaskRequest = members.outgoing
    members.clients["utility00"].unmask(request)
    with pytest.raises(FederationError, match="each stage is passed once"):
        members.clients["utility00"].unmask(
            replace(request, survivors=request.survivors[1:], dropped=request.survivors[:1])
        )


def test_coordinator_that_shows_members_different_survivors_is_refused() -> None:
    members = Members(5, num_words=4, threshold=3)
    server = members.up_to(3)
    everyone = members.outgoing
    lied_to = ("utility00", "utility01")
    for name in everyone:
        shown = everyone[:4] if name in lied_to else everyone
        confirmation = members.clients[name].confirm(shown)
        if name not in lied_to:
            server.receive(name, confirmation)
    honest = server.request()
    split_view = replace(honest, survivors=everyone[:4], dropped=everyone[4:])
    with pytest.raises(FederationError, match="0 survivors signed the list of survivors, the threshold is 3"):
        members.clients["utility00"].unmask(split_view)


def test_member_refuses_to_unmask_without_enough_signatures() -> None:
    members = Members(5, num_words=4)
    members.up_to(4)
    request: UnmaskRequest = members.outgoing
    forged = replace(request, confirmations=dict.fromkeys(request.confirmations, "00" * 64))
    with pytest.raises(FederationError, match="0 survivors signed"):
        members.clients["utility01"].unmask(forged)


def swap_keys(adverts: tuple[KeyAdvert, ...]) -> list[KeyAdvert]:
    return [replace(adverts[0], mask_key=adverts[1].mask_key), *adverts[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap_keys, "Keys of 'utility00' are not signed"),
        (lambda adverts: [replace(adverts[0], sender="stranger"), *adverts[1:]], "Keys of 'stranger' are not signed"),
        (lambda adverts: [adverts[0], *adverts], "one member twice, advertise the same key"),
        (lambda adverts: adverts[:3], "3 members advertised keys, the threshold is 4"),
        (lambda adverts: adverts[1:], "has none of 'utility00' itself"),
    ],
)
def test_member_refuses_a_list_of_keys_that_was_tampered_with(
    change: Callable[[tuple[KeyAdvert, ...]], Sequence[KeyAdvert]], message: str
) -> None:
    members = Members(5, num_words=4)
    members.up_to(1)
    with pytest.raises(FederationError, match=message):
        members.clients["utility00"].share_keys(change(members.outgoing))


def test_advert_of_another_round_is_refused() -> None:
    members = Members(3, num_words=4)
    old = replace(members.session, round=2)
    advert = SecureClient(old, "utility00", members.identities["utility00"]).advertise()
    with pytest.raises(FederationError, match="not signed with its identity key"):
        SecureServer(members.session).receive("utility00", advert)


def test_box_that_was_changed_is_refused_with_its_sender() -> None:
    members = Members(4, num_words=4)
    server = members.up_to(1)
    shares = members("share_keys", dict.fromkeys(members.clients, (members.outgoing,)))
    boxes = dict(shares["utility01"].boxes)
    boxes["utility00"] = boxes["utility00"][:-1] + bytes([boxes["utility00"][-1] ^ 1])
    shares["utility01"] = replace(shares["utility01"], boxes=boxes)
    for name, message in shares.items():
        server.receive(name, message)
    inputs = members("mask", {name: (part,) for name, part in server.boxes().items()})
    for name, message in inputs.items():
        server.receive(name, message)
    everyone = server.survivors()
    for name, message in members("confirm", dict.fromkeys(everyone, (everyone,))).items():
        server.receive(name, message)
    with pytest.raises(FederationError, match="share from 'utility01' was changed"):
        members.clients["utility00"].unmask(server.request())


def test_wrong_message_is_refused_and_its_member_counts_as_dropped() -> None:
    members = Members(4, num_words=8)

    def channel(method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        answers = members(method, arguments)
        if method == "mask":
            answers["utility01"] = replace(answers["utility01"], words=answers["utility01"].words[:-1])
        return answers

    result = secure_sum(members.session, channel)
    assert "must have uint32 words of shape (8,)" in result.absent["utility01"]
    np.testing.assert_array_equal(result.words, members.sum_of(result.survivors))


def test_second_message_and_message_in_anothers_name_are_refused() -> None:
    members = Members(3, num_words=4)
    server = SecureServer(members.session)
    advert = members.clients["utility00"].advertise()
    server.receive("utility00", advert)
    with pytest.raises(FederationError, match="is a second one: refused"):
        server.receive("utility00", advert)
    with pytest.raises(FederationError, match="says it is from 'utility00'"):
        server.receive("utility01", advert)


def test_share_that_is_not_the_members_voids_the_round() -> None:
    members = Members(4, num_words=8)
    server = members.up_to(4)
    answers = members("unmask", dict.fromkeys(members.clients, (members.outgoing,)))
    wrong = dict(answers["utility00"].seed_shares) | {"utility02": bytes(33)}
    answers["utility00"] = replace(answers["utility00"], seed_shares=wrong)
    for name, message in answers.items():
        server.receive(name, message)
    with pytest.raises(FederationError, match="a member sent a wrong share"):
        server.total()


@pytest.mark.parametrize(
    ("num_members", "threshold", "message"),
    [
        (2, 2, "A secure sum of 2 members hides nothing"),
        (8, 4, "threshold 4 of 8 members: give 5 to 8"),
        (8, 9, "threshold 9 of 8 members: give 5 to 8"),
        (3, 2, "threshold 2 of 3 members: give 3 to 3"),
    ],
)
def test_threshold_that_does_not_protect_is_refused(num_members: int, threshold: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Members(num_members, num_words=4, threshold=threshold)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), num_shares=st.integers(1, 12), secret=st.binary(min_size=32, max_size=32))
def test_threshold_many_shares_give_the_secret_back(data: st.DataObject, num_shares: int, secret: bytes) -> None:
    threshold = data.draw(st.integers(1, num_shares))
    shares = dict(enumerate(split(secret, threshold=threshold, num_shares=num_shares), 1))
    chosen = data.draw(st.permutations(sorted(shares)))[: data.draw(st.integers(threshold, num_shares))]
    assert reconstruct({number: shares[number] for number in chosen}, threshold=threshold) == secret
    with pytest.raises(FederationError, match="too few"):
        reconstruct({number: shares[number] for number in chosen[: threshold - 1]}, threshold=threshold)


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    # Two shares of threshold three: for any other secret there is a third share that makes them give it.
    shares = dict(enumerate(split(bytes(31) + b"\x05", threshold=3, num_shares=3), 1))
    points = {number: int.from_bytes(share, "big") for number, share in shares.items()}
    # Value at 0 of the parabola through (1, a), (2, b), (3, c) is 3a - 3b + c.
    wanted = int.from_bytes(hashlib.sha256(b"another").digest(), "big")
    third = (wanted - 3 * points[1] + 3 * points[2]) % PRIME
    forged = {1: shares[1], 2: shares[2], 3: third.to_bytes(33, "big")}
    assert reconstruct(forged, threshold=3) == hashlib.sha256(b"another").digest()


def test_field_is_prime() -> None:
    # Miller and Rabin's test with 58 bases.
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 60):
        value = pow(base, odd, PRIME)
        powers = [pow(value, 2**power, PRIME) for power in range(twos)]
        assert value == 1 or PRIME - 1 in powers


def test_box_opens_with_its_key_only() -> None:
    key = os.urandom(32)
    assert unseal(key, seal(key, b"share"), "north") == b"share"
    with pytest.raises(FederationError, match="share from 'north'"):
        unseal(os.urandom(32), seal(key, b"share"), "north")


def test_weighted_updates_add_up_under_masks() -> None:
    members = Members(6, num_words=WeightedCodec.num_words(50))
    codec = WeightedCodec(widest(0.5, 6))
    rng = np.random.default_rng(0)
    updates = {name: rng.uniform(-0.5, 0.5, size=50) for name in members.clients}
    weights = dict(zip(members.clients, [1e-3, 0.3, 0.6, 1.0, 1.0, 1.0], strict=True))
    members.words = {name: codec.encode(updates[name], weights[name]) for name in members.clients}
    members.silent_from = {"utility01": STAGES.index("mask")}
    result = run(members)
    mean, effective = codec.decode(result.words)
    shares = np.array([weights[name] for name in result.survivors])
    expected = shares @ np.array([updates[name] for name in result.survivors]) / shares.sum()
    np.testing.assert_allclose(mean, expected, atol=1e-7)
    assert effective == pytest.approx(shares.sum() ** 2 / np.square(shares).sum(), rel=1e-6)
