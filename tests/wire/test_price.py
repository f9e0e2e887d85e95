"""What expressions may cost: bombs are known before they go off, and what is usual is not."""

import pytest

from kcore.wire import cel
from tests.kernel import uploads
from tests.kernel.uploads import WIDGET, widget

ENGINE = cel.Engine(uploads.message_class().DESCRIPTOR.file.pool, wary=lambda _: True)


def doubling(times: int) -> str:
    """A text that is concatenated with itself so often."""
    text = f"x{times}.size() > 1"
    for at in range(times, 0, -1):
        text = f"cel.bind(x{at}, x{at - 1} + x{at - 1}, {text})"
    return f"cel.bind(x0, 'xxxxxxxxxxxxxxxx', {text})"


# Too dear on anything.
HOPELESS = {
    "concatenation": doubling(24),
    "loops": "[1,2,3,4,5,6,7,8].all(a, " * 8 + "true" + ")" * 8,
    "a pattern of the user's": "!self.spec.secret.matches(self.spec.color + self.spec.secret)",
    "self is another": "[1].all(self, self > 0)",
}


@pytest.mark.parametrize("bomb", HOPELESS)
def test_what_is_dear_on_the_smallest_object_is_refused(bomb: str) -> None:
    with pytest.raises(ValueError, match="costs too much on the smallest object"):
        ENGINE.compile(HOPELESS[bomb], WIDGET)


# Dear on an object with many parts, or a long text.
DEAR = {
    "growing list": "self.spec.parts.map(p, p.name).size() > 0",
    "filtered list": "self.spec.parts.filter(p, p.name != '').size() > 0",
    "three lists": (
        "self.spec.parts.all(a, self.spec.parts.all(b, self.spec.parts.map(c, c.name).size() > 0))"
    ),
    "many states": "!self.spec.secret.matches('(a|b)*a(a|b){500}c')",
    "replaced": "self.spec.secret.replace('a', self.spec.secret).size() > 0",
    "split and joined": "self.spec.secret.split('').map(x, x + x).join('').size() > 0",
    "membership": "self.spec.parts.all(p, p.name in self.spec.parts.map(o, o.name))",
}


@pytest.mark.parametrize("bomb", DEAR)
def test_what_is_dear_on_an_object_is_not_evaluated_on_it(bomb: str) -> None:
    expression = ENGINE.compile(DEAR[bomb], WIDGET)
    small = widget(parts=[{"name": "a"}, {"name": "b"}], secret="abab")
    assert expression.evaluate(expression.bind(small)) is True
    large = widget(secret="ab" * 50_000)
    for number in range(5_000):
        large.spec.parts.add(name=str(number))
    failed = expression.evaluate(expression.bind(large))
    assert isinstance(failed, cel.Failed) and "could take" in failed.why
    assert "bytes, and 10 ms are allowed" in failed.why
    assert expression.holds(expression.bind(large)) == failed


USUAL = (
    "self.spec.size <= self.spec.limit",
    "self.spec.parts.all(p, p.name.matches('^[a-z]+$') && p.weight.string != '')",
    "self.spec.parts.all(p, self.spec.parts.exists_one(o, o.name == p.name))",
    "self.spec.parts.map(p, p.name).join(',').size() < 1000",
    "self.spec.notes.all(k, k.startsWith('a') && self.spec.notes[k].size() < 10)",
    "self.spec.secret.split(',').all(word, word.size() < 9)",
    "self.spec.parts.all(p, quantity(p.weight.string) > 0.0)",
    "!has(self.spec.secret) || self.spec.secret.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "matches_labels(kcore.meta.v1.LabelSelector{match_labels: {'a': 'b'}}, {'a': 'b'})",
)


@pytest.mark.parametrize("text", USUAL)
def test_what_is_usual_is_evaluated_on_usual_objects(text: str) -> None:
    expression = ENGINE.compile(text, WIDGET)
    notes = {f"a{number}": "note" for number in range(30)}
    parts = [{"name": "p" * (n + 1), "weight": {"string": "1Gi"}} for n in range(30)]
    made = widget(size=1, limit=2, notes=notes, parts=parts, secret="abc")
    assert expression.evaluate(expression.bind(made)) is True


def test_what_nobody_else_writes_has_no_price() -> None:
    ours = cel.Engine(uploads.message_class().DESCRIPTOR.file.pool)
    expression = ours.compile(DEAR["growing list"], WIDGET)
    many = widget()
    for number in range(500):
        many.spec.parts.add(name=str(number))
    assert expression.evaluate(expression.bind(many)) is True
