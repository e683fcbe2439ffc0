"""Templates run as in transformers, and reach nothing they should not."""

from __future__ import annotations

from datetime import datetime

import pytest

from zaya.errors import CheckpointError, UsageError
from zaya.text import byte_tokenizer, render
from zaya.text.template import DEFAULT_TEMPLATE, compile_template


def run(source, **variables):
    return compile_template(source).render(variables)


def test_blocks_are_trimmed():
    assert run("  {% if true %}\n  a\n  {% endif %}\nb") == "  a\nb"


def test_json_is_plain():
    assert run("{{ x | tojson }}", x={"b": "<é>&'", "a": None}) == '{"b": "<é>&\'", "a": null}'
    assert run("{{ x | tojson(indent=1, sort_keys=true) }}", x={"b": 1, "a": 2}) == '{\n "a": 2,\n "b": 1\n}'


def test_loop_controls_time_and_generation_blocks():
    assert run("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "1"
    assert run("{{ strftime_now('%Y') }}") == str(datetime.now().year)
    assert run("{% generation %}{{ x }}{% endgeneration %}{% generation %}b{% endgeneration %}", x="a") == "ab"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{% set _ = messages[0].update({'role': 'system'}) %}",
        "{{ x.y.z }}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_a_template_may_not_do_is_an_error(attack):
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(UsageError, match="chat template fails on these messages"):
        render(byte_tokenizer(chat_template="<|im_start|>" + attack), messages)
    assert messages == [{"role": "user", "content": "x"}]


def test_a_template_may_refuse():
    with pytest.raises(UsageError, match="refuses these messages: no tools here"):
        run("{{ raise_exception('no tools here') }}")


def test_a_template_that_is_none():
    with pytest.raises(CheckpointError, match="not valid Jinja, line 2"):
        run("a\n{% if %}")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for a in x %}" * 30 + "{% endfor %}" * 30, "SyntaxError: too many statically nested blocks"),
        ("{% if x %}" * 300 + "{% endif %}" * 300, "nested too deeply"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
    ],
)
def test_a_template_that_cannot_be_compiled(source, why):
    with pytest.raises(CheckpointError, match=f"the chat template cannot be compiled: .*{why}"):
        compile_template(source)


def test_a_template_that_calls_itself_forever():
    with pytest.raises(UsageError, match=r"fails on these messages: .* nested too deeply"):
        run("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")


def test_words_are_what_the_code_names():
    words = compile_template("text {{ a.attr['item'] }}{% if b == 'value' and '<tag>' in c %}x{% endif %}").words
    assert words == {"attr", "item", "value"}


def test_the_built_in_template_is_in_the_package():
    assert DEFAULT_TEMPLATE.lstrip().startswith("{#-")
    assert byte_tokenizer().chat_template is None
