import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import ingest
from daemon.errors import IntegrityError
from daemon.ingest import REDACTED, clean
from daemon.messages import MAX_TEXT
from daemon.pseudonyms import KEY_FILE, Pseudonyms, open_pseudonyms

UNHARMED = [
    "Failed password for root from 192.0.2.7 port 22 ssh2",
    "Failed password for invalid user admin from 2001:db8::7 port 22 ssh2",
    "Accepted publickey for alice from 192.0.2.7 port 50022 ssh2: ED25519 SHA256:AbCdEf0123456789+/AbCdEf",
    "pam_unix(sshd:auth): authentication failure; logname= uid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
    "pam_unix(passwd:chauthtok): password changed for alice",
    "passwd: all authentication tokens updated successfully",
    "Access denied for user 'root'@'localhost' (using password: YES)",
    "imapd: Login failed user=lizdy auth=lizdy host=mail.example.org [192.0.2.7]",
    "TCP: request_sock_TCP: Possible SYN flooding on port 80. Sending cookies.",
    "systemd-ask-password-console.path: Deactivated successfully.",
    "Unexpected token: < in JSON at position 0",
    "max_tokens=4096 prompt tokens: 512",
    "ssl_certificate_key: /etc/ssl/private/host.key not found",
    "Loading private key: /etc/ssl/private/host.pem",
    "Out of memory: Killed process 4242 (python3) total-vm:8388608kB, anon-rss:4194304kB",
    "GET https://example.org/index.html?page=2 HTTP/1.1 200",
    "spark://CoarseGrainedScheduler@192.0.2.11:48069 connected",
    "task-manager: disk-usage of ask-password at 80 %",
    "sig=0x6, pf=0x2, rev=0x2006b06",
    "passwd: You may not view or modify password information for root.",
    "gpasswd: Permission denied.",
    "LoadCredential=backup.key:/etc/backup/key and ImportCredential=myapp.*",
    "pam_unix(chpasswd:chauthtok): password changed for alice",
    "pam_sss(token:auth): received for user alice: 7 (Authentication failure)",
    "COMMAND=/usr/bin/systemctl --user restart app.service",
    "COMMAND=/usr/bin/docker run --user 1000:1000 app",
    "disk-usage of systemd-udevd at 80:20",
]

SECRETS = [
    ("password=hunter2 user=x", "hunter2", "user=x"),
    ('login {"password": "hun ter\\"2", "id": 7}', "hun ter", "login"),
    ("passwd='it is long' next", "it is long", "next"),
    ("db_password: s3cr3t!, host: h", "s3cr3t", "host: h"),
    ("password: 12345678", "12345678", "password"),
    ("password: permission-42 next", "permission-42", "next"),
    ("SetCredential=token:hunter2 set", "hunter2", "set"),
    ("api_key=abcdef1234 ok", "abcdef1234", "ok"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalr", "aws_secret"),
    ("signing key\t= 0f1e2d3c ok", "0f1e2d3c", "ok"),
    ("set storagekeyhash=0f1e2d3c ok", "0f1e2d3c", "ok"),
    ("client_secret=1212&grant_type=client", "1212", "grant_type=client"),
    ("using AKIAIOSFODNN7EXAMPLE now", "AKIAIOSFODNN7EXAMPLE", "now"),
    ("clone https://bob:gr33n@example.org/x.git done", "gr33n", "bob"),
    ("clone https://0123456789abcdef01234567@example.org/x", "0123456789abcdef", "example.org"),
    ("Authorization: Bearer abc.def-ghi", "abc.def", "Authorization"),
    ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz", "Authorization"),
    ('header "authorization":"Digest username=\'a\', response=0a1b"', "0a1b", "header"),
    ("sent bearer abcdef123456 to", "abcdef123456", "to"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl end", "c2lnbmF0dXJl", "end"),
    ("Set-Cookie: sid=0123abcd; Path=/", "0123abcd", "Set-Cookie"),
    ("got ghp_0123456789abcdefghijABCDEFGHIJ012345 here", "ghp_0123", "here"),
    ("got sk-proj-0123456789abcdefABCDEF here", "sk-proj-0123", "here"),
    ("got glpat-0123456789abcdefABCD here", "glpat-0123", "here"),
    ("got xoxb-0123456789-abcdef here", "xoxb-0123", "here"),
    ("COMMAND=/usr/bin/mysql --password hunter2 -h db", "hunter2", "-h db"),
    ("COMMAND=/usr/bin/curl -u bob:hunter2 https://example.org", "hunter2", "bob"),
    ("COMMAND=/usr/bin/curl --user bob:hunter2 10.0.0.5/x", "hunter2", "10.0.0.5/x"),
    ("-u bob:hunter2 10.0.0.5/x", "hunter2", "10.0.0.5/x"),
    ("args: curl\t-u\tbob:hunter2\t10.0.0.5/x", "hunter2", "10.0.0.5/x"),
    ("TypeError in connect(password='hunter2', port=1)", "hunter2", "port=1"),
    ("refused (token=abcdef0123456789) again", "abcdef", "again"),
    ("asked (secret: hunter2) twice", "hunter2", "twice"),
    ("pam_unix(passwd:hunter2): ok", "hunter2", "ok"),
    ("ALTER USER bob IDENTIFIED BY 'hunter2' ok", "hunter2", "ok"),
    ("CREATE USER bob IDENTIFIED WITH x BY\n'hunter2' ok", "hunter2", "ok"),
    ('ALTER ROLE bob PASSWORD  "hunter2" ok', "hunter2", "ok"),
    ("GET /o?X-Amz-Signature=0a1b2c3d&x=1", "0a1b2c3d", "x=1"),
    ("k -----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY----- end", "MIIEow", "end"),
    ("k -----BEGIN OPENSSH PRIVATE KEY-----\nMIIEow\nIBAAK", "MIIEow", "BEGIN OPENSSH"),
]


@pytest.mark.parametrize("text", UNHARMED)
def test_ordinary_lines_pass_unharmed(text):
    assert clean(text) == (text, False)
    assert clean(text.encode()) == (text, False)


@pytest.mark.parametrize(("text", "secret", "kept"), SECRETS)
def test_secrets_are_redacted_and_the_rest_is_kept(text, secret, kept):
    cleaned, _ = clean(text.encode())
    assert REDACTED in cleaned
    assert secret not in cleaned
    assert kept in cleaned


# For each rule, and each word of which it needs one, a secret that this rule finds.
VENDORS = [
    "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xoxb-", "sk-", "sk_live_", "sk_test_",
    "hvs.", "npm_", "pypi-", "AIza", "AGE-SECRET-KEY-1",
]  # fmt: skip
OPTIONS = [
    "password", "passwd", "passphrase", "passcode", "pass", "pwd", "db-secret", "token", "credential",
    "api-key", "my-access-key", "storagekey", "account_key_hash",
]  # fmt: skip
NAMES = [
    "password", "passwd", "passphrase", "passcode", "pwd", "secret", "credential", "token", "api.key",
    "access key", "private-key", "secretkey", "encryption_key", "signing key_hash", "auth key",
    "shared_key", "masterkey_access_key", "account-key-12", "storage-key-string",
]  # fmt: skip
EXAMPLES = [
    (ingest._PRIVATE_KEY, "-----BEGIN EC PRIVATE KEY-----\nS3CRET0000\n-----END EC PRIVATE KEY-----"),
    (ingest._HEADER, "authorization: S3CRET0000"),
    (ingest._BEARER, "got bearer S3CRET0000"),
    (ingest._COOKIE, "Cookie: id=S3CRET0000"),
    (ingest._URL, "ftp://bob:S3CRET0000@h/"),
    (ingest._URL_TOKEN, f"ftp://{'S3CRET0000' * 3}@h/"),
    (ingest._JWT, "got eyJS3CRET0000.eyJS3CRET0000.x"),
    *((ingest._AWS, f"got {word}S3CRET0000000000 here") for word in ("AKIA", "ASIA")),
    *((ingest._VENDOR, f"got {word}S3CRET0000{'0' * 30} here") for word in VENDORS),
    *((ingest._OPTION, f"run --{word} S3CRET0000 -v") for word in OPTIONS),
    *((ingest._USER_OPTION, f"curl {word} bob:S3CRET0000") for word in ("-u", "--user")),
    *((ingest._SQL, f"{words} 'S3CRET0000'") for words in ("set password", "identified by")),
    *((ingest._SQL, f'{words}\n"S3CRET0000"') for words in ("set password", "identified by")),
    *((ingest._SHORT_NAMES, f"?{word}=S3CRET0000") for word in ("pass", "sig", "signature", "authtoken")),
    *(
        (ingest._ASSIGNED, f"({name}{sign}S3CRET0000)")
        for name in NAMES
        for sign in ("=", ": ", " => ", ' := "', '\\" : "')
    ),
]


@pytest.mark.parametrize(("rule", "text"), EXAMPLES)
def test_no_quick_check_keeps_a_secret_from_the_rule_that_finds_it(rule, text):
    assert rule.search(text)
    for raw in (text, text.upper()) if rule.search(text.upper()) else (text,):
        assert REDACTED in clean(raw)[0]
        assert "S3CRET" not in clean(raw)[0]


def test_every_rule_has_an_example():
    rules = {pattern for _, pattern, _ in ingest._RULES} | {ingest._ASSIGNED}
    assert rules == {rule for rule, _ in EXAMPLES}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a\xffb\xc3", "a\\xffb\\xc3"),
        ("a\x1b[31mred\x1b]0;title\x07", "a\\x1b[31mred\\x1b]0;title\\x07"),
        ("one\ntwo\r\n\tthree", "one\\ntwo\\r\\n three"),
        ("info\tFailed authentication", "info Failed authentication"),
        ("evil\u202etxt.exe", "evil\\u202etxt.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("hidden\ufe0f\U000e0101\u3164", "hidden\\ufe0f\\U000e0101\\u3164"),
        ("nul\x00c1\x9b31m", "nul\\x00c1\\x9b31m"),
        ("lone \udc80 surrogate", "lone \\udc80 surrogate"),
        ("line\u2028separator", "line\\u2028separator"),
        ("Grüße aus Köln, 東京 ✓", "Grüße aus Köln, 東京 ✓"),
    ],
)
def test_what_cannot_be_seen_is_escaped_once(raw, expected):
    once = clean(raw)[0]
    assert once == expected
    assert clean(once)[0] == once


def test_long_text_is_cut_after_the_read_and_says_so():
    assert clean("x" * MAX_TEXT) == ("x" * MAX_TEXT, False)
    assert clean("x" * (MAX_TEXT + 1)) == ("x" * MAX_TEXT, True)
    assert clean(b"\xf0\x9f\x98\x80" * 100_000) == ("\U0001f600" * MAX_TEXT, True)
    text, cut = clean("\x1b" * MAX_TEXT)
    assert (len(text), cut) == (MAX_TEXT, True)


def test_a_secret_across_the_cut_is_still_redacted():
    text, cut = clean("x" * (MAX_TEXT - 30) + " https://bob:" + "s3cret" * 20 + "@example.org/")
    assert cut
    assert "s3cret" not in text


@given(st.one_of(st.binary(max_size=6000), st.text(max_size=3000)))
def test_any_input_becomes_short_printable_text(raw):
    text, _ = clean(raw)
    assert len(text) <= MAX_TEXT
    assert text.isprintable()
    assert text.encode("utf-8").decode() == text


_WORDS = ["password", "=", ":", " ", "'", '"', "token", "--", "eyJ", "//", "@", "a1", "Bearer ", "[redacted]"]


@given(st.lists(st.sampled_from(_WORDS), max_size=60).map("".join))
def test_cleaning_what_was_cleaned_settles(raw):
    twice = clean(clean(raw)[0])[0]
    assert clean(twice)[0] == twice


HOSTILE = [
    *(
        "eyJ",
        "eyJa.",
        "password",
        "password=",
        "password: '",
        'token="',
        "--a-",
        "-",
        "--password ",
        "//",
        "//a:",
    ),
    *("//a1", "a@", "://:@", "authorization:", "authorization: basic ", "authorization: digest ", "bearer "),
    *(
        "bearer a",
        "cookie:a",
        "-----BEGIN ",
        "-----BEGIN RSA PRIVATE KEY-----",
        "AKIA",
        "ghp_",
        "sk-",
        "-u a",
    ),
    *(" -u a:", "by '", "sig=", "_key", "api key ", "1.", "1.1.1.1", "a:", "::", "for user ", "/home/", "a."),
    *("\x1b", "\u202e", "\udc80", "\x00", " "),
]


@pytest.mark.parametrize("pad", HOSTILE)
def test_hostile_lines_cost_a_bounded_time(pad):
    raw = "password=authorization//bearer eyj --cookie: " + pad * (1 << 17)
    names = Pseudonyms(b"k" * 32, ["alice"])
    started = time.process_time()
    clean(raw)
    names.clean(raw)
    assert time.process_time() - started < 0.1  # linear work is below 5 ms; a busy machine gets room


# --- pseudonyms ---------------------------------------------------------------------------------------


def test_users_and_addresses_become_stable_stand_ins():
    names = Pseudonyms(b"k" * 32, ["alice"], ["root", "www-data"])
    text = names.clean("Failed password for invalid user bob from 192.0.2.7 port 22 ssh2")[0]
    assert "bob" not in text
    assert "192.0.2.7" not in text
    assert text.startswith("Failed password for invalid user user-")
    assert text == names.clean("Failed password for invalid user bob from 192.0.2.7 port 22 ssh2")[0]
    assert names.address("192.0.2.7") in text
    assert names.address("192.0.2.7") != Pseudonyms(b"l" * 32).address("192.0.2.7")


@pytest.mark.parametrize(
    ("raw", "hidden"),
    [
        ("session opened for user carol(uid=1001) by (uid=0)", "carol"),
        ("pam: user=dave rhost=x", "dave"),
        ("erin : TTY=pts/0 ; PWD=/home/erin ; USER=root ; COMMAND=/bin/ls", "erin"),
        ("removed 'alice' from the list", "alice"),
        ("mail from frank@example.org accepted", "frank"),
        ("peer 2001:db8::7, ok", "2001:db8::7"),
        ("dhcp 52:54:00:12:34:56 seen", "12:34:56"),
    ],
)
def test_people_are_hidden_wherever_they_are_named(raw, hidden):
    assert hidden not in Pseudonyms(b"k" * 32, ["alice"]).clean(raw)[0]


@pytest.mark.parametrize(
    "raw",
    [
        "Failed password for root from 127.0.0.1 port 22 ssh2",
        "at 12:34:56 the clock struck",
        "listening on ::1 and 0.0.0.0",
    ],
)
def test_what_names_nobody_stays(raw):
    assert Pseudonyms(b"k" * 32).clean(raw)[0] == raw


@given(st.ip_addresses())
def test_stand_ins_are_addresses_and_keep_their_stand_in(address):
    names = Pseudonyms(b"k" * 32)
    once = names.address(str(address))
    assert names.address(once) == once


def test_key_is_made_once_and_is_private(tmp_path):
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nbroken\n")
    first = open_pseudonyms(tmp_path, passwd)
    second = open_pseudonyms(tmp_path, passwd)
    assert first.user("alice") == second.user("alice") != "alice"
    assert first.user("root") == "root"
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_a_damaged_key_is_refused(tmp_path):
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(IntegrityError):
        open_pseudonyms(tmp_path)
