"""XMP sidecars, read by Exiv2 with Adobe's XMP toolkit, and by Python's XML parser."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.xmp import encode_xmp

LI = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


TEXT = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")


@given(st.text(TEXT | st.sampled_from("\r\n\t<&>\"']")))
def test_any_caption_is_valid_xml(caption: str) -> None:
    items = ElementTree.fromstring(encode_xmp(caption)).findall(f".//{LI}")
    assert [(item.text or "", item.get(LANGUAGE)) for item in items] == [(caption, "x-default")] * 2


def test_what_xml_cannot_hold_is_replaced() -> None:
    items = ElementTree.fromstring(encode_xmp("a\0b\x1bc\ufffe")).findall(f".//{LI}")
    assert items[0].text == "a\ufffdb\ufffdc\ufffd"


@pytest.mark.parametrize("caption", ["a dog & a ‘cat’ <b>", "two\nlines", "日本"])
def test_another_reader_finds_description_and_alternative_text(caption: str, tmp_path: Path) -> None:
    pyexiv2 = pytest.importorskip("pyexiv2")
    (tmp_path / "a.xmp").write_bytes(encode_xmp(caption))
    with pyexiv2.Image(str(tmp_path / "a.xmp")) as sidecar:
        found = sidecar.read_xmp()
    expected = {'lang="x-default"': caption}
    assert found["Xmp.dc.description"] == found["Xmp.iptc.AltTextAccessibility"] == expected
