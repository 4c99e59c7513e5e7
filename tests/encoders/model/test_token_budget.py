from encoders.model.token_budget import TokenBudget


def batches_until_it_grows(budget: TokenBudget) -> int:
    before, batches = budget.tokens, 0
    while budget.tokens == before:
        budget.fits(budget.tokens, budget.tokens)
        batches += 1
    return batches


def test_it_halves_and_comes_back_to_where_it_began() -> None:
    budget = TokenBudget(1000)
    budget.halve(900)
    assert budget.tokens == 450
    budget.halve(450)
    assert budget.tokens == 225
    assert [batches_until_it_grows(budget) for _ in range(3)] == [16, 16, 16]
    assert budget.tokens == 1000
    for _ in range(100):
        budget.fits(1000, 1000)
    assert budget.tokens == 1000


def test_a_small_batch_says_nothing_of_the_budget() -> None:
    budget = TokenBudget(1000)
    budget.halve(1000)
    for _ in range(1000):
        budget.fits(249, 500)
    assert budget.tokens == 500


def test_a_device_that_stays_full_is_tried_ever_less() -> None:
    budget = TokenBudget(1000)
    budget.halve(1000)
    waits = []
    for _ in range(8):
        waits.append(batches_until_it_grows(budget))
        budget.halve(1000)
    assert waits == [16, 32, 64, 128, 256, 512, 1024, 1024]
    batches_until_it_grows(budget)
    for _ in range(1024):
        budget.fits(1000, 1000)
    budget.halve(1000)
    assert batches_until_it_grows(budget) == 16


def test_it_never_falls_below_one_token() -> None:
    budget = TokenBudget(64)
    for _ in range(10):
        budget.halve(64)
    assert budget.tokens == 1
    budget.reset()
    assert budget.tokens == 64
