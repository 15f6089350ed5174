# SPDX-License-Identifier: Apache-2.0
"""RIM documents: XML in one form, signed as a whole, and nothing else gets past the reader."""

from __future__ import annotations

import base64
import builtins
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.crypto import x509
from confide.errors import ConfideError, ConfigurationError, MalformedError, NotGenuine
from confide.tees.nvidia import endorse, rim
from support import nvidia, nvidia_permitted_bits
from support.refusal import code_of, only_typed_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from confide.simulator.nvidia import Manifest

DEVICE = nvidia.device()
ROOT = x509.Certificate.from_der(DEVICE.signer.chain[-1])
DIGEST = "sha384"


def manifest(**changes: Any) -> Manifest:
    return replace(DEVICE.manifests()["driver"], **changes)


def document(**changes: Any) -> bytes:
    return manifest(**changes).sign(DEVICE.signer)


def verdict(data: bytes) -> str:
    """The code with which a document is refused, or nothing."""
    try:
        rim.parse(data).verify((ROOT,), at=nvidia.AT)
    except ConfideError as error:
        return error.code
    return ""


def edited(before: str, after: str, data: bytes | None = None) -> bytes:
    """The signed document with one text in the place of another."""
    text = (document() if data is None else data).decode()
    assert text.count(before) >= 1, before
    return text.replace(before, after, 1).encode()


def resigned(before: str, after: str) -> bytes:
    """The document with a text in the place of another before it was signed."""
    return document(change=lambda text: _replaced(text, before, after))


def _replaced(text: str, before: str, after: str) -> str:
    assert before in text, before
    return text.replace(before, after, 1)


def test_a_minted_document_says_what_it_was_made_of() -> None:
    found = rim.parse(document())

    assert (found.kind, found.version, found.product, found.edition) == (
        "driver",
        "575.57.08",
        "GH100",
        "GPU",
    )
    assert {one.index: one.values for one in found.golden} == dict(manifest().golden)
    assert [one.index for one in found.golden if not one.active] == [40]
    assert found.verify((ROOT,), at=nvidia.AT)[-1].der == ROOT.der
    assert rim.recognises(document())
    assert rim.parse(DEVICE.manifests()["vbios"].sign(DEVICE.signer)).kind == "vbios"


@pytest.mark.parametrize(
    "data",
    [
        b'<?xml version="1.0"?>\n' + document(),
        b'<?xml version="1.0" encoding="UTF-8"?>' + document(),
        b"<?xml version='1.0' encoding='utf-8' ?>\n" + document() + b"\n\n",
        document().replace(b"\n", b"\r\n"),
        document() + b" \t\n",
        edited("</ns0:Entity>", "</ns0:Entity\n>"),
        edited("></ns0:Entity>", "/>"),
    ],
)
def test_other_spellings_of_the_same_document_are_the_same_document(data: bytes) -> None:
    assert verdict(data) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("</ns0:Payload>\n", "</ns0:Payload>"),
        lambda text: text.replace("</ns0:Payload>\n", "</ns0:Payload>\n\n  "),
        lambda text: "".join(line.strip() for line in text.split("\n")),
        lambda text: text.replace("confide simulator", "confid\u00e9 &amp; simulator &lt;1"),
    ],
)
def test_white_space_and_text_are_signed_as_they_are(change: Callable[[str], str]) -> None:
    assert verdict(document(change=change)) == ""


def test_attributes_may_stand_in_any_order() -> None:
    text = document().decode()
    tag = re.search(r"<ns0:Resource [^>]*>", text)
    assert tag is not None
    words = re.findall(r'\S+="[^"]*"', tag[0])

    swapped = text.replace(tag[0], f"<ns0:Resource {' '.join(reversed(words))}>").encode()

    assert (swapped != document(), verdict(swapped)) == (True, "")


BOMB = (
    '<!DOCTYPE a [<!ENTITY a0 "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    + "]>"
)


@pytest.mark.parametrize(
    "head",
    [
        BOMB,
        "<!DOCTYPE SoftwareIdentity>",
        '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/"> %x;]>',
        '<!DOCTYPE a [<!ATTLIST SoftwareIdentity version CDATA "2.0">]>',
        "<!-- a comment -->",
        "<?target instruction?>",
        '<?xml-stylesheet href="http://127.0.0.1:9/"?>',
        '<?xml version="1.1"?>',
        '<?xml version="1.0" encoding="UTF-16"?>',
        '<?xml version="1.0" encoding="utf-8" standalone="yes"?>',
        "\ufeff",
        "text",
        "\x00",
        "&amp;",
    ],
)
def test_what_no_document_begins_with_is_refused(head: str) -> None:
    tracemalloc.start()
    try:
        assert verdict(head.encode() + document()) == "malformed.non_canonical"
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "inside",
    [
        "<!-- a comment -->",
        "<?target instruction?>",
        "<![CDATA[ ]]>",
        "&x;",
        "&#0;",
        "&#xD800;",
        "&#99999999;",
        "&amp",
        "& ",
        "\x0b",
        "\x7f\x80".encode("latin-1").decode("latin-1") + "\ufffe",
    ],
)
@pytest.mark.parametrize(
    "place", ["</ns0:Payload>", "</SoftwareIdentity>", "</ds:SignedInfo>", "</ds:SignatureValue>"]
)
def test_what_no_document_contains_is_refused_wherever_it_stands(place: str, inside: str) -> None:
    assert verdict(edited(place, inside + place)).startswith("malformed.")


def test_a_comment_that_canonical_xml_leaves_out_cannot_split_a_value() -> None:
    before = 'colloquialVersion="575.57.08"'
    text = edited(before, 'colloquialVersion="575<!-- -->.57.08"')

    assert verdict(text).startswith("malformed.")


@pytest.mark.parametrize("name", ["a", "../a", "?", "#", "//host"])
@pytest.mark.parametrize("element", ["<SoftwareIdentity", "<ns0:Payload", "<ns0:Meta"])
def test_a_namespace_for_which_canonical_xml_has_no_form_is_refused(element: str, name: str) -> None:
    """Found by the fuzzer: a relative namespace parses, and then fails where the document is written anew."""
    data = document()
    assert verdict(data) == ""

    assert verdict(edited(element, f'{element} xmlns:x="{name}"', data)) == "malformed.non_canonical"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1"])
def test_another_encoding_is_refused(encoding: str) -> None:
    text = document(tag_id="00" * 8).decode().replace("confide simulator", "confid\u00e9 simulator")

    assert verdict(text.encode(encoding)).startswith("malformed.")


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ('name="GH100"', 'name="GH200"', "not_genuine.bad_signature"),
        ('index="7"', 'index="6"', "not_genuine.bad_signature"),
        ('active="False"', 'active="True"', "not_genuine.bad_signature"),
        ("    <ns0:Meta", "     <ns0:Meta", "not_genuine.bad_signature"),
        ("</ns0:Payload>\n", "</ns0:Payload>\n\n", "not_genuine.bad_signature"),
        ("</ds:Signature></Soft", "</ds:Signature> </Soft", "not_genuine.bad_signature"),
        ("<ns0:Payload>\n        <ns0:R", "<ns0:Payload>\n         <ns0:R", "not_genuine.bad_signature"),
        ('version="1.0"', 'version="1.0" extra="1"', "not_genuine.bad_signature"),
        ('schema.xsd" xmlns:ns0', 'schema.xsd" xmlns:other="urn:x" xmlns:ns0', "not_genuine.bad_signature"),
    ],
)
def test_any_change_to_the_document_breaks_its_digest(before: str, after: str, code: str) -> None:
    assert verdict(edited(before, after)) == code


SIGNATURE_EDITS = [
    ('<ds:Reference URI="">', '<ds:Reference URI="#x">'),
    ('<ds:Reference URI="">', "<ds:Reference>"),
    ('<ds:Reference URI="">', '<ds:Reference URI="" Id="a">'),
    ('<ds:Reference URI="">', '<ds:Reference URI="" Type="urn:x">'),
    ('<ds:Reference URI="">', '<ds:Reference URI="file:///etc/passwd">'),
    ('<ds:Reference URI="">', '<ds:Reference URI="http://127.0.0.1:9/">'),
    ("xmldsig#enveloped-signature", "xmldsig#base64"),
    ("http://www.w3.org/2000/09/xmldsig#enveloped-signature", "http://www.w3.org/TR/1999/REC-xslt-19991116"),
    ("http://www.w3.org/2000/09/xmldsig#enveloped-signature", "http://www.w3.org/TR/1999/REC-xpath-19991116"),
    ('xml-c14n11"></ds:Transform>', 'xml-exc-c14n#"></ds:Transform>'),
    ('xml-c14n11"></ds:Transform>', 'xml-c14n11#WithComments"></ds:Transform>'),
    ('xml-c14n11"></ds:Canon', 'xml-c14n11#WithComments"></ds:Canon'),
    ("xmldsig-more#ecdsa-sha384", "xmldsig-more#ecdsa-sha1"),
    ("xmldsig-more#ecdsa-sha384", "xmldsig-more#hmac-sha384"),
    ("xmldsig-more#ecdsa-sha384", "xmldsig-more#rsa-sha384"),
    ('#sha384"></ds:DigestMethod>', '#md5"></ds:DigestMethod>'),
    ('#sha384"></ds:DigestMethod>', '#sha384">1</ds:DigestMethod>'),
    ("<ds:Transforms>", '<ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#base64"/>'),
    ("<ds:Transforms>", "<ds:Transforms>text"),
    ("</ds:Transforms>", "</ds:Transforms><ds:Transforms/>"),
    ("<ds:DigestValue>", "<ds:DigestValue>AAAA</ds:DigestValue><ds:DigestValue>"),
    ("<ds:DigestValue>", "<ds:DigestValue><x/>"),
    ("</ds:KeyInfo>", "</ds:KeyInfo><ds:Object/>"),
    ("<ds:KeyInfo>", "<ds:KeyInfo><ds:KeyName>x</ds:KeyName>"),
    ("<ds:KeyInfo>", '<ds:KeyInfo><ds:RetrievalMethod URI="http://127.0.0.1:9/"/>'),
    ("<ds:KeyInfo>", '<ds:KeyInfo Id="x">'),
    ("<ds:X509Data>", "<ds:X509Data><ds:X509CRL>AAAA</ds:X509CRL>"),
    ("</ds:SignatureValue>", "<x/></ds:SignatureValue>"),
    ("</ds:X509Certificate>", "<x/></ds:X509Certificate>"),
    ("</ds:DigestValue>", "<x/></ds:DigestValue>"),
    ("</ds:DigestMethod>", "<x/></ds:DigestMethod>"),
    ("</ds:Transform>", "<x/></ds:Transform>"),
    ("</ds:SignatureMethod>", "<x/></ds:SignatureMethod>"),
    ("</ds:CanonicalizationMethod>", "<x/></ds:CanonicalizationMethod>"),
    ("<ds:SignatureValue>", '<ds:SignatureValue Id="x">'),
    ("<ds:SignedInfo>", '<ds:SignedInfo Id="x">'),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), SIGNATURE_EDITS)
def test_a_signature_of_another_structure_is_refused_before_its_digest_is_looked_at(
    before: str, after: str
) -> None:
    assert verdict(edited(before, after)).startswith("malformed.")


def _info(text: str) -> str:
    found = re.search(r"<ds:SignedInfo>.*</ds:SignedInfo>", text, re.DOTALL)
    assert found is not None
    return found[0]


def _reference(text: str) -> str:
    found = re.search(r"<ds:Reference .*</ds:Reference>", text, re.DOTALL)
    assert found is not None
    return found[0]


def test_two_references_are_refused() -> None:
    text = document().decode()

    assert (
        verdict(text.replace(_reference(text), _reference(text) * 2).encode()) == "malformed.unknown_format"
    )
    assert verdict(text.replace(_reference(text), "").encode()) == "malformed.unknown_format"


def _signature(text: str) -> str:
    found = re.search(r"<ds:Signature .*</ds:Signature>", text, re.DOTALL)
    assert found is not None
    return found[0]


def wrappings() -> dict[str, Callable[[str, str], str]]:
    """Ways to keep a genuine document and its signature in the file, and to have another one read."""
    head = '<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd">'
    end = "</SoftwareIdentity>"
    return {
        "signature around the genuine one": lambda good, bad: bad.replace(
            _signature(bad),
            _signature(good).replace("</ds:Signature>", f"<ds:Object>{good}</ds:Object></ds:Signature>"),
        ),
        "the genuine one inside, after the signature": lambda good, bad: bad.replace(
            _signature(bad), _signature(good)
        ).replace(end, good + end),
        "the genuine one inside, before the signature": lambda good, bad: bad.replace(
            _signature(bad), good + _signature(good)
        ),
        "the genuine one as another payload": lambda good, bad: bad.replace(
            "</ns0:Payload>", f"{good}</ns0:Payload>"
        ).replace(_signature(bad), _signature(good)),
        "both under one element": lambda good, bad: head + good + bad + end,
        "two signatures, the genuine first": lambda good, bad: bad.replace(
            _signature(bad), _signature(good) + _signature(bad)
        ),
        "two signatures, the genuine last": lambda good, bad: bad.replace(
            _signature(bad), _signature(bad) + _signature(good)
        ),
        "the signature first": lambda good, bad: _signature(good) + bad.replace(_signature(bad), ""),
        "the genuine signature on the other document": lambda good, bad: bad.replace(
            _signature(bad), _signature(good)
        ),
        "a second payload": lambda good, bad: good.replace(
            "<ns0:Payload>",
            bad[bad.index("<ns0:Payload>") : bad.index("</ns0:Payload>") + 14] + "<ns0:Payload>",
        ),
    }


@pytest.mark.parametrize("name", wrappings())
def test_signature_wrapping_is_refused(name: str) -> None:
    stranger = nvidia.device(world="another")
    good = document().decode()
    bad = manifest(golden={7: (b"\x66" * 48,)}).sign(stranger.signer).decode()

    found = verdict(wrappings()[name](good, bad).encode())

    assert found in {
        "malformed.unknown_format",
        "malformed.non_canonical",
        "malformed.limit_exceeded",
        "not_genuine.bad_signature",
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('version="1.0"', 'version="1.0" xml:lang="en"'),
        ('version="1.0"', 'version="1.0" xml:base="http://127.0.0.1:9/"'),
        ('version="1.0"', 'version="1.0" xml:id="a"'),
        ("<ns0:Payload>", '<ns0:Payload xml:space="preserve">'),
    ],
)
def test_attributes_in_which_the_two_canonical_forms_differ_are_refused(before: str, after: str) -> None:
    assert verdict(resigned(before, after)) == "malformed.non_canonical"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('colloquialVersion="575.57.08"', 'colloquialVersion=""'),
        (' colloquialVersion="575.57.08"', ""),
        ('colloquialVersion="575.57.08"', 'colloquialVersion="575 57"'),
        ('colloquialVersion="575.57.08"', f'colloquialVersion="{"1" * 33}"'),
        (' product="GH100"', ""),
        (' edition="GPU"', ""),
        ('active="True"', 'active="true"'),
        ('active="True" ', ""),
        ('type="Measurement"', 'type="Other"'),
        ('index="7"', 'index="07"'),
        ('index="7"', 'index="-7"'),
        ('index="7"', 'index="256"'),
        ('index="7"', 'index="99999"'),
        ('index="7"', 'index="21"'),
        ('alternatives="2"', 'alternatives="3"'),
        ('alternatives="2"', 'alternatives="1"'),
        ('alternatives="2"', 'alternatives="0"'),
        ('alternatives="2"', 'alternatives="17"'),
        ('size="48"', 'size="47"'),
        ('size="48"', 'size="0"'),
        ("ns2:Hash1", "ns2:Hash2"),
        ("ns2:Hash1", "Hash1"),
        ('ns2:Hash0="00', 'ns2:Hash0="0g'),
        ('ns2:Hash0="00', 'ns2:Hash0="0'),
        ('name="Measurement_7"', 'name="Measurement_7" unknown="1"'),
        ("></ns0:Resource>", "><ns0:Resource></ns0:Resource></ns0:Resource>"),
        ("></ns0:Resource>", ">text</ns0:Resource>"),
        ("<ns0:Payload>", "<ns0:Payload>text"),
        ("<ns0:Payload>", "<ns0:Payload><ns0:File></ns0:File>"),
        ("<ns0:Entity", "<ns0:Link></ns0:Link><ns0:Entity"),
        ("<ns0:Entity", "<ns0:Meta></ns0:Meta><ns0:Entity"),
        (' tagId="', ' tag="'),
        ('product="GH100"', 'product="GH\u0430100"'),
        ('product="GH100"', 'product="GH&#9;100"'),
        ('product="GH100"', f'product="{"G" * 33}"'),
        ('name="Measurement_7"', f'name="{"M" * 65}"'),
        ("<ns0:Resource ", "<ns0:Directory "),
    ],
)
def test_a_signed_document_in_another_form_is_refused_all_the_same(before: str, after: str) -> None:
    def change(text: str) -> str:
        made = _replaced(text, before, after)
        return made.replace("</ns0:Resource>", "</ns0:Directory>", 1) if "Directory" in after else made

    assert verdict(document(change=change)).startswith("malformed.")


def test_numbers_of_measurements_and_values_are_bounded() -> None:
    value = b"\x01" * 48

    assert verdict(document(golden={7: (value,) * 16}, inactive=())) == ""
    assert verdict(document(golden={7: (value,) * 17}, inactive=())) == "malformed.limit_exceeded"
    assert verdict(document(golden={255: (b"\x01",)}, inactive=())) == ""
    assert verdict(document(golden={256: (b"\x01",)}, inactive=())) == "malformed.limit_exceeded"
    assert verdict(document(golden={}, inactive=())) == "malformed.limit_exceeded"
    assert verdict(document(tag_id="0" * 128)) == ""
    assert verdict(document(tag_id="0" * 129)) == "malformed.non_canonical"
    name = "M" * 64
    assert verdict(resigned('name="Measurement_7"', f'name="{name}"')) == ""


def test_no_payload_and_another_root_element_are_refused() -> None:
    start, end = "    <ns0:Payload>", "</ns0:Payload>\n"

    def without(text: str) -> str:
        return text[: text.index(start)] + text[text.index(end) + len(end) :]

    assert verdict(document(change=without)) == "malformed.unknown_format"
    assert verdict(document(golden={7: (b"\x01" * 48,)}, inactive=())) == ""
    assert verdict(edited("SoftwareIdentity", "Other").replace(b"/SoftwareIdentity", b"/Other")) == (
        "malformed.unknown_format"
    )
    assert verdict(b"<a/>") == "malformed.unknown_format"
    assert verdict(b"") == "malformed.non_canonical"


def _with_certificates(*certificates: bytes) -> bytes:
    return manifest().sign(DEVICE.signer, certificates=certificates)


def test_the_first_certificate_is_the_signer_s() -> None:
    chain = DEVICE.signer.chain
    other = nvidia.device(world="another").signer.chain

    assert verdict(_with_certificates(*chain[:2])) == ""
    assert verdict(_with_certificates(chain[1], chain[0])) == "not_genuine.bad_signature"
    assert verdict(_with_certificates(*other)) == "not_genuine.bad_signature"
    assert verdict(_with_certificates(chain[0])) == "not_genuine.chain_invalid"
    assert verdict(_with_certificates(*chain, *other)) == ""
    assert verdict(_with_certificates(*chain * 3)) == "malformed.limit_exceeded"
    assert verdict(_with_certificates()) == "malformed.limit_exceeded"
    assert verdict(_with_certificates(b"\x30\x00")).startswith("malformed.")


@pytest.mark.parametrize("value", ["", "AAAA", "A" * 128, "A" * 127 + "=", "!" * 128, "\u0410" * 128])
def test_a_signature_value_in_another_form_is_refused(value: str) -> None:
    text = document().decode()
    old = re.search(r"<ds:SignatureValue>([^<]*)<", text)
    assert old is not None

    found = verdict(text.replace(old[1], value).encode())

    assert found == "not_genuine.bad_signature" if value == "A" * 128 else found.startswith("malformed.")


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u3000", "\u0085"])
@pytest.mark.parametrize("element", ["DigestValue", "SignatureValue", "X509Certificate"])
def test_space_that_is_none_in_xml_is_no_break_in_base64(element: str, space: str) -> None:
    text = nvidia.device().documents()[0].data.decode()
    start = f"<ds:{element}>"
    data = text.replace(start, start + space, 1).encode()

    with pytest.raises(MalformedError) as caught:
        rim.parse(data)
    assert caught.value.code == "malformed.non_canonical"
    assert rim.parse(text.replace("<ds:SignatureValue>", "<ds:SignatureValue>\t\n ").encode())


def test_a_signature_with_an_attribute_is_refused() -> None:
    text = nvidia.device().documents()[0].data.decode()

    with pytest.raises(MalformedError) as caught:
        rim.parse(text.replace("<ds:Signature ", '<ds:Signature Id="one" ').encode())
    assert caught.value.code == "malformed.unknown_format"


def test_base64_that_is_not_in_its_one_form_is_refused() -> None:
    text = document().decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for der in DEVICE.signer.chain:
        encoded = base64.encodebytes(der).decode().rstrip("\n")
        words = encoded.rstrip("=")
        others = [encoded[:40] + "-" + encoded[41:], encoded + "=", encoded[:-1], "=" + encoded]
        if words != encoded:
            # The bits that the padding leaves over are zero in the one form.
            others.append(words[:-1] + alphabet[alphabet.index(words[-1]) + 1] + encoded[len(words) :])
        for other in others:
            assert verdict(text.replace(encoded, other).encode()) == "malformed.non_canonical", other


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (document() + b" " * 100_000_000, "malformed.limit_exceeded"),
        (b"<a>" * 20_000, "malformed.non_canonical"),
        (b"<a>" * 200 + b"</a>" * 200, "malformed.limit_exceeded"),
        (b"<a>" + b"<b/>" * 15_000 + b"</a>", "malformed.unknown_format"),
        (
            b"<a " + b" ".join(b'a%d="1"' % number for number in range(6000)) + b"/>",
            "malformed.unknown_format",
        ),
    ],
    ids=["long", "unclosed", "deep", "many", "wide"],
)
def test_ev_14_large_and_deep_files_are_refused_in_bounded_memory(data: bytes, code: str) -> None:
    tracemalloc.start()
    try:
        assert code_of(rim.parse, data) == code
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60), st.integers(0, len(document())), st.integers(0, 60))
@settings(max_examples=150)
def test_ev_04_spliced_documents_raise_nothing_but_errors_of_confide(junk: bytes, at: int, gone: int) -> None:
    data = document()

    found = only_typed_errors(rim.parse, data[:at] + junk + data[at + gone :])
    if found is not None:
        only_typed_errors(found.verify, (ROOT,), at=nvidia.AT)


@pytest.mark.parametrize("length", range(0, 1500, 7))
def test_ev_01_a_document_cut_at_any_byte_is_refused(length: int) -> None:
    data = document()

    for cut in range(length, len(data), 1500):
        assert verdict(data[:cut]).startswith("malformed."), cut


def test_ev_03_no_bit_of_a_real_document_can_be_turned_over(shared: Path) -> None:
    _turn_over(shared, 97)


@pytest.mark.slow
def test_ev_03_no_bit_of_a_real_document_can_be_turned_over_and_fewer_are_left_out(shared: Path) -> None:
    _turn_over(shared, 7)


def _turn_over(shared: Path, step: int) -> None:
    data = (nvidia.folder(shared) / "rim" / "NV_GPU_DRIVER_GH100_550.90.07.xml").read_bytes()
    roots = tuple(
        x509.Certificate.from_der(der)
        for anchor in endorse.anchors()
        if anchor.name == "rim"
        for der in anchor.certificates
    )
    at = datetime(2025, 10, 24, tzinfo=UTC)
    rim.parse(data).verify(roots, at=at)
    passed = []
    for bit in range(5, 8 * len(data), step):
        try:
            rim.parse(nvidia.flipped(data, bit)).verify(roots, at=at)
        except (MalformedError, NotGenuine):
            continue
        passed.append(bit)
    assert [bit for bit in passed if not nvidia_permitted_bits.in_embedded_root(data, bit)] == []


def test_without_lxml_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "lxml":
            raise ImportError
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    data = document(tag_id="11" * 48)

    with pytest.raises(ConfigurationError) as caught:
        rim.parse(data)

    assert (caught.value.code, caught.value.hint) == (
        "configuration.missing_extra",
        "pip install 'confide[nvidia]'",
    )


def test_lxml_is_loaded_by_the_first_document_and_not_before() -> None:
    program = (
        "import sys, confide.tees.nvidia.appraise, confide.tees.nvidia.rim as rim; before = 'lxml' in sys.modules\n"
        "try:\n    rim.parse(b'<a/>')\nexcept Exception as error:\n    print(before, 'lxml' in sys.modules, error.code)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["False", "True", "malformed.unknown_format"]


def test_the_answer_of_the_vendor_s_service_is_unwrapped() -> None:
    data = document()
    answer = b'{"id": "NV_GPU_DRIVER_GH100_1", "rim": "' + base64.b64encode(data) + b'", "rim_format": "TCG"}'

    assert endorse.read_rim_answer(answer) == data
    for other in (b"{}", b"[]", b'{"rim": 1}', b'{"rim": "!"}', b'{"rim": ""}' + b"x", b"<html>"):
        assert code_of(endorse.read_rim_answer, other).startswith("malformed.")
