import threading

from streams.turns import Turns
from tests.waiting import until


def test_turns_are_given_in_the_order_of_asking() -> None:
    turns = Turns()
    order: list[int] = []

    def take(number: int) -> None:
        with turns:
            order.append(number)

    threads = []
    with turns:
        for number in range(5):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            threads.append(thread)
            until(lambda asked=number + 2: turns._next == asked, "the thread to ask")  # type: ignore[misc]
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]


def test_one_who_takes_turns_in_a_row_lets_the_other_in_between() -> None:
    turns = Turns()
    inside = threading.Event()
    order: list[str] = []

    def other() -> None:
        inside.set()
        with turns:
            order.append("other")

    thread = threading.Thread(target=other)
    with turns:
        thread.start()
        until(lambda: turns._next == 2, "the other to ask")
        order.append("first")
    with turns:
        order.append("first again")
    thread.join(10)
    assert order == ["first", "other", "first again"]
