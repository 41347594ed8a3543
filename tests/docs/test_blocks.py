"""The parser of pages, and the comparison of outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.blocks import Step, is_shown_output, parse_blocks, parse_steps

PAGE = """\
# A page

<!-- exit 3 -->
```console
$ false
```

1. In a list:

   ```python
   if True:

       print(1)
   ```

```
nothing said
```
"""


def test_blocks_are_found_with_what_stands_above_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    first, second, third = parse_blocks(page)
    assert (first.language, first.code, first.status, first.line) == ("console", "$ false\n", 3, 4)
    assert (second.language, second.code, second.status) == ("python", "if True:\n\n    print(1)\n", 0)
    assert (third.language, third.directive) == ("", "")


def test_steps_are_commands_with_their_outputs() -> None:
    code = "$ a\n$ b \\\n> c\nsaid\n\nmore\n$ d\n"
    assert parse_steps(code, "$ ") == [Step("a", None), Step("b \\\nc", "said\n\nmore"), Step("d", None)]


def test_a_block_that_begins_with_output_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="does not begin"):
        parse_steps("said\n", "$ ")


@pytest.mark.parametrize(
    ("shown", "actual", "same"),
    [
        ("a b", "a\n  b\n", True),
        ("a b", "a b c", False),
        ("a … c", "a c", True),
        ("a … c", "a b b c", True),
        ("a … c", "a b", False),
        ("lib…so", "libx.so", True),
        ("lib…so", "lib.a", False),
        ("…", "", True),
        ("a.b", "axb", False),
        ("", "x", False),
    ],
)
def test_shown_outputs(shown: str, actual: str, same: bool) -> None:
    assert is_shown_output(shown, actual) is same
