from mouse_facelift.pages.markup import Markup, number, tag


def test_elements_escape_what_is_not_markup():
    assert (
        tag("td", "<b>", Markup("<i>x</i>"), None, title='"') == '<td title="&quot;">&lt;b&gt;<i>x</i></td>'
    )
    assert tag("input", type="checkbox", checked=True) == '<input type="checkbox" checked>'
    assert number(-0.04) == "0"
    assert number(2.50) == "2.5"
