import pytest
import torch
import torch.nn.functional as F

from loligo.nn import memory
from loligo.nn.memory import (
    MemoryMatrix,
    MemoryPrototypes,
    MemoryQueue,
    compactness_and_separateness,
    entropy,
    shrink,
    unit_distance,
)


def plain_shrink(logits: torch.Tensor, how: str, k: int, threshold: float, strict: bool) -> torch.Tensor:
    """One row at a time, one slot at a time."""
    rows = []
    for row in logits:
        p = torch.exp(row - row.max())
        p = p / p.sum()
        bar = sorted(p.tolist(), reverse=True)[k - 1]
        kept = []
        for value in p.tolist():
            if how == "gumbel":
                kept.append(value if (value > bar if strict else value >= bar) else 0.0)
            elif how == "hard":
                kept.append(value if value > threshold else 0.0)
            elif how == "soft":
                kept.append(max(value - threshold, 0.0))
            else:
                kept.append(value)
        total = sum(kept)
        rows.append([v / total for v in kept])
    return torch.tensor(rows)


@pytest.mark.parametrize("how", ["gumbel", "hard", "soft", "none"])
@pytest.mark.parametrize("strict", [False, True])
def test_shrink_agrees_with_a_plain_loop(how: str, strict: bool) -> None:
    logits = torch.randn(7, 30, generator=torch.Generator().manual_seed(0))
    found = shrink(logits, how, k=5, threshold=0.02, strict=strict)
    torch.testing.assert_close(found, plain_shrink(logits, how, 5, 0.02, strict), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(7))


@pytest.mark.parametrize(("strict", "kept"), [(False, 5), (True, 4)])
def test_gumbel_keeps_k_slots_and_one_fewer_where_strict(strict: bool, kept: int) -> None:
    weights = shrink(torch.randn(9, 40), "gumbel", k=5, strict=strict)
    assert ((weights > 1e-6).sum(-1) == kept).all()


def test_as_many_slots_are_kept_under_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, honest = [], memory.shrink

    def watched(*given: object, **options: object) -> torch.Tensor:
        weights = honest(*given, **options)  # type: ignore[arg-type]
        kept.append((weights > 1e-6).sum(-1))
        return weights

    monkeypatch.setattr(memory, "shrink", watched)
    torch.manual_seed(0)
    bank = MemoryMatrix(200, 64, 4, "gumbel", 5, False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        bank.slots.mul_(0.1).add_(4)  # similarities near 1000, of which bfloat16 knows every eighth
        bank(4 + 0.1 * torch.randn(50, 4, 64))
    assert (kept[0] == 5).float().mean() > 0.95


def test_gumbel_passes_the_gradient_of_the_softmax() -> None:
    logits = torch.randn(3, 12, requires_grad=True)
    direction = torch.randn(3, 12)
    (through,) = torch.autograd.grad((shrink(logits, "gumbel") * direction).sum(), logits)
    (softmax,) = torch.autograd.grad((logits.softmax(-1) * direction).sum(), logits)
    torch.testing.assert_close(through, softmax)


def test_k_above_the_number_of_slots_keeps_all() -> None:
    logits = torch.randn(2, 3)
    torch.testing.assert_close(shrink(logits, "gumbel", k=5), logits.softmax(-1))


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("positions", [1, 4])
def test_memory_reads_each_position_from_its_own_slots(positions: int, learns: bool) -> None:
    memory = MemoryMatrix(20, 6, positions, "gumbel", 5, False)
    query = torch.randn(3, 4, 6)
    with torch.set_grad_enabled(learns):
        read = memory(query)
    for n in range(3):
        for place in range(4):
            slots = memory.slots[place if positions > 1 else 0]
            weights = shrink(query[n, place] @ slots.T, "gumbel", 5)
            torch.testing.assert_close(read[n, place], weights @ slots, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [2, 4, 20])
@pytest.mark.parametrize("how", ["gumbel", "hard"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("slots", ["own", "twins", "equal", "far"])
def test_memory_reads_the_same_in_training_and_scoring(slots: str, strict: bool, how: memory.Shrinkage, k: int) -> None:
    torch.manual_seed(0)
    bank = MemoryMatrix(12, 6, 4, how, k, strict)
    with torch.no_grad():
        if slots == "twins":  # fewer than k - 1 are kept where similarities are equal and strict
            bank.slots[:, 6:] = bank.slots[:, :6]
        elif slots == "equal":
            bank.slots[:] = bank.slots[:, :1]
        elif slots == "far":  # one slot's weight is 1, the others' are 0
            bank.slots[:, 3] += 1000
    query = torch.rand(3, 4, 6)
    plain = bank(query)
    with torch.no_grad():
        torch.testing.assert_close(bank.eval()(query), plain.detach(), rtol=1e-5, atol=1e-6)
        assert bank(torch.full_like(query, torch.nan)).isnan().all()
    torch.testing.assert_close(bank(query), plain)


def test_gumbel_keeps_k_of_equal_slots_but_none_where_strict() -> None:
    assert (shrink(torch.zeros(2, 9), "gumbel", k=4) > 0.1).sum(-1).tolist() == [4, 4]
    assert shrink(torch.zeros(2, 9), "gumbel", k=4, strict=True).abs().max() < 1e-6


def test_a_matrix_learns_and_a_queue_does_not() -> None:
    assert [name for name, _ in MemoryMatrix(4, 3, 2, "none", 1, False).named_parameters()] == ["slots"]
    queue = MemoryQueue(4, 3, 2, "none", 1, False)
    assert not list(queue.parameters())
    assert set(queue.state_dict()) == {"slots", "pointer"}


@pytest.mark.parametrize("batches", [[3, 3, 3, 3], [5, 7, 1], [10], [23, 4]])
def test_queue_is_first_in_first_out_at_every_position(batches: list[int]) -> None:
    queue, plain, at = MemoryQueue(10, 2, 3, "none", 1, False), {}, 0
    for number, n in enumerate(batches):
        features = torch.randn(n, 3, 2, generator=torch.Generator().manual_seed(number))
        queue.write(features)
        for feature in features:
            plain[at % 10] = feature
            at += 1
    for slot, feature in plain.items():
        torch.testing.assert_close(queue.slots[:, slot], feature, rtol=0, atol=0)
    assert int(queue.pointer) == at % 10


def test_a_shared_queue_takes_up_the_features_of_all_positions() -> None:
    queue = MemoryQueue(12, 2, 1, "none", 1, False)
    features = torch.randn(3, 4, 2)
    queue.write(features)
    torch.testing.assert_close(queue.slots[0], features.reshape(12, 2))


def test_a_memory_is_addressed_by_cosine_similarity_and_returns_how() -> None:
    torch.manual_seed(0)
    bank = MemoryMatrix(30, 6, 1, "hard", threshold=1 / 30, cosine=True)
    query = torch.randn(3, 4, 6)
    found = bank.look(query)
    for n in range(3):
        for place in range(4):
            similarity = torch.stack([F.cosine_similarity(query[n, place], slot, 0) for slot in bank.slots[0]])
            weights = plain_shrink(similarity[None], "hard", 1, 1 / 30, False)[0]
            torch.testing.assert_close(found.similarity[0, 4 * n + place], similarity)
            torch.testing.assert_close(found.weights[0, 4 * n + place], weights, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(found.values[n, place], weights @ bank.slots[0], rtol=1e-4, atol=1e-6)
    assert 0 < float((found.weights == 0).float().mean()) < 1
    torch.testing.assert_close(bank.look(100 * query).values, found.values)


def test_entropy_is_that_of_torch_and_its_gradient_is_finite_at_nought() -> None:
    weights = shrink(torch.randn(7, 20), "hard", threshold=0.05).requires_grad_()
    expected = torch.distributions.Categorical(probs=weights.detach()).entropy().mean()
    torch.testing.assert_close(entropy(weights), expected)
    assert (weights == 0).any()
    assert torch.autograd.grad(entropy(weights), weights)[0].isfinite().all()


def test_compactness_and_separateness_are_distance_and_triplet_loss() -> None:
    torch.manual_seed(0)
    queries, slots = (F.normalize(torch.randn(n, 8), dim=1) for n in (40, 6))
    order = torch.cdist(queries, slots).argsort(1)
    nearest, second = slots[order[:, 0]], slots[order[:, 1]]
    compactness, separateness = compactness_and_separateness(queries @ slots.T, 0.3)
    torch.testing.assert_close(compactness, F.pairwise_distance(queries, nearest).mean(), rtol=1e-4, atol=1e-5)
    expected = F.triplet_margin_loss(queries, nearest, second, margin=0.3)
    torch.testing.assert_close(separateness, expected, rtol=1e-4, atol=1e-5)


def test_the_distance_of_equal_vectors_has_a_finite_gradient() -> None:
    cosine = torch.ones(3, requires_grad=True)
    assert torch.autograd.grad(unit_distance(cosine).sum(), cosine)[0].isfinite().all()


def plain_update(slots: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """MNAD's update, slot by slot: weights are a softmax over queries, relative to the largest of a slot's own."""
    similarity = queries @ slots.T
    columns = torch.stack(
        [torch.exp(similarity[:, m]) / torch.exp(similarity[:, m]).sum() for m in range(len(slots))], 1
    )
    moved = []
    for m, slot in enumerate(slots):
        mine = [k for k in range(len(queries)) if int(similarity[k].argmax()) == m]
        for k in mine:
            slot = slot + columns[k, m] / max(columns[j, m] for j in mine) * queries[k]
        moved.append(slot / slot.norm())
    return torch.stack(moved)


def test_prototypes_move_towards_the_queries_nearest_to_them() -> None:
    torch.manual_seed(0)
    memory = MemoryPrototypes(5, 4)
    torch.testing.assert_close(memory.slots.norm(dim=-1), torch.ones(1, 5))
    queries = F.normalize(torch.randn(2, 3, 4), dim=-1)
    expected = plain_update(memory.slots[0], queries.flatten(0, 1))
    before = memory.slots[0].clone()
    memory.write(3 * queries)  # whose length says nothing
    torch.testing.assert_close(memory.slots[0], expected)
    idle = [m for m in range(5) if m not in (queries.flatten(0, 1) @ before.T).argmax(1)]
    assert idle and torch.equal(memory.slots[0, idle].round(decimals=5), before[idle].round(decimals=5))
    assert not list(memory.parameters()) and set(memory.state_dict()) == {"slots"}


def test_prototypes_are_read_by_the_softmax_of_cosines() -> None:
    memory = MemoryPrototypes(5, 4)
    queries = F.normalize(torch.randn(2, 3, 4), dim=-1)
    torch.testing.assert_close(memory(queries), (queries @ memory.slots[0].T).softmax(-1) @ memory.slots[0])
