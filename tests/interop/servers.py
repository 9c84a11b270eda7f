"""Servers by other authors, each in a tree of its own that is its root while it runs: no user, file or setting of ours stays.

Each listens on three ports of 127.0.0.1: one that takes mail and offers
STARTTLS, one that takes none without AUTH, one under TLS from the first byte.
What it takes it hands on to one receiver, so that the way can be seen to its end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs
import packages
import trustme

__all__ = [
    "PASSWORD",
    "REFUSED",
    "SIZE",
    "SMTP_SINK",
    "USER",
    "Exim",
    "OpenSMTPD",
    "Postfix",
    "Server",
    "smtp_sink",
]

USER, PASSWORD = "user", "correct horse"
REFUSED = "refused@example.org"
SIZE: Final = 60_000_000
PATIENCE: Final = 30.0
SMTP_SINK: Final = "smtp-sink"
DEVICES: Final = {"null": (1, 3), "urandom": (1, 9), "random": (1, 8)}
PASSWD: Final = """\
root:x:0:0::/root:/bin/sh
nobody:x:65534:65534::/nonexistent:/bin/false
postfix:x:2001:2001::/var/spool/postfix:/bin/false
Debian-exim:x:2002:2002::/var/spool/exim4:/bin/false
opensmtpd:x:2003:2003::/var/lib/opensmtpd/empty:/bin/false
opensmtpq:x:2004:2004::/var/lib/opensmtpd/empty:/bin/false
"""
GROUP: Final = """\
root:x:0:
nogroup:x:65534:
postfix:x:2001:
Debian-exim:x:2002:
opensmtpd:x:2003:
opensmtpq:x:2004:
postdrop:x:2005:
mail:x:8:
"""


@attrs.define(kw_only=True)
class Server:
    """One server: unpacked by :meth:`running`, and gone at the end of its block.

    Attributes:
        open, login, implicit: Its ports.
        onward: The port of the receiver that it hands everything on to.
    """

    name: ClassVar[str]
    packages: ClassVar[Sequence[str]]

    root: Path
    ca: trustme.CA
    onward: int
    open: int = 0
    login: int = 0
    implicit: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Unpack, start, and wait until it answers.

        Raises:
            Missing: it cannot be had here, or does not start; the text says why.
        """
        self.open, self.login, self.implicit = free_ports(3)
        self.unpack()
        packages.borrow(self.root)
        self._furnish()
        self.configure()
        with (self.root / "said").open("wb") as said:
            process = subprocess.Popen(
                ["chroot", str(self.root), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            )
            try:
                for port in (self.open, self.login, self.implicit):
                    wait_for(port, process, self.log)
                yield
            finally:
                end(self.root, process)

    def unpack(self) -> None:
        """Fill the tree with its programs."""
        packages.unpack(self.packages, self.root)

    def configure(self) -> None:
        """Write its configuration into the tree."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """What starts it in the foreground, within the tree."""
        raise NotImplementedError

    def log(self) -> str:
        """The end of what it said."""
        said = [self.root / "said", *(self.root / "var/log").rglob("*log")]
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in said if path.is_file())

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def folder(self, path: str, owner: int = 0, group: int = 0, mode: int = 0o755) -> None:
        made = self.root / path
        made.mkdir(parents=True, exist_ok=True)
        os.chown(made, owner, group)
        made.chmod(mode)

    def inside(self, *command: str, said: str = "", group: int = 0) -> str:
        """Run a program of the tree, as root and *group*; what it prints."""
        done = subprocess.run(
            ["chroot", str(self.root), *command],
            input=said,
            capture_output=True,
            text=True,
            check=False,
            group=group,
        )
        if done.returncode:
            raise packages.Missing(
                f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-300:]}"
            )
        return done.stdout.strip()

    def _furnish(self) -> None:
        self.root.chmod(0o755)
        self.write("etc/passwd", PASSWD)
        self.write("etc/group", GROUP)
        self.write("etc/hosts", "127.0.0.1 localhost mx.interop.test\n")
        self.write("etc/mailname", "mx.interop.test\n")
        self.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        self.write("etc/resolv.conf", "nameserver 127.0.0.1\n")
        self.write("etc/services", "smtp 25/tcp\nsubmission 587/tcp\nsmtps 465/tcp\n")
        for path in ("tmp", "var/tmp"):
            self.folder(path, mode=0o1777)
        for path in ("var/log", "var/run", "run", "dev"):
            self.folder(path)
        for name, device in DEVICES.items():
            make_device(self.root / "dev" / name, device)
        issued = self.ca.issue_cert("127.0.0.1", "localhost")
        chain = "".join(blob.bytes().decode() for blob in issued.cert_chain_pems)
        self.write("etc/ssl/interop/cert.pem", chain)
        self.write("etc/ssl/interop/key.pem", issued.private_key_pem.bytes().decode(), 0o600)


class Postfix(Server):
    name = "Postfix"
    packages = ("postfix", "sasl2-bin", "libsasl2-modules", "libsasl2-modules-db")

    def configure(self) -> None:
        self._make_spool()
        self.write("etc/postfix/main.cf", self._main())
        self.write("etc/postfix/master.cf", self._master())
        self.write(
            "etc/postfix/sasl/smtpd.conf",
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: /etc/sasldb2\n",
        )
        make = ("saslpasswd2", "-p", "-c", "-f", "/etc/sasldb2", "-u", "interop", USER)
        self.inside(f"/usr/sbin/{make[0]}", *make[1:], said=PASSWORD)
        os.chown(self.root / "etc/sasldb2", 2001, 2001)

    def _make_spool(self) -> None:
        spool = "var/spool/postfix"
        self.folder(spool)
        for path in [
            "active",
            "bounce",
            "corrupt",
            "defer",
            "deferred",
            "flush",
            "hold",
            "incoming",
            "private",
            "saved",
            "trace",
        ]:
            self.folder(f"{spool}/{path}", 2001, mode=0o700)
        self.folder(f"{spool}/pid")
        self.folder(f"{spool}/public", 2001, 2005, 0o710)
        self.folder(f"{spool}/maildrop", 2001, 2005, 0o730)
        self.folder("var/lib/postfix", 2001, mode=0o700)

    def command(self) -> Sequence[str]:
        return ["/usr/lib/postfix/sbin/master", "-d"]

    def _main(self) -> str:
        return f"""\
compatibility_level = 3.6
myhostname = mx.interop.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{self.onward}
maillog_file = /var/log/postfix.log
alias_maps =
message_size_limit = {SIZE}
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
    check_recipient_access inline:{{ {{ {REFUSED} = 550 5.1.1 no such user }} }}, permit_mynetworks, reject
smtpd_sasl_local_domain = interop
smtpd_tls_security_level = may
smtpd_tls_cert_file = /etc/ssl/interop/cert.pem
smtpd_tls_key_file = /etc/ssl/interop/key.pem
smtp_tls_security_level = none
"""

    def _master(self) -> str:
        login = (
            "-o smtpd_sasl_auth_enable=yes -o smtpd_tls_auth_only=yes"
            " -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"
            " -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject"
        )
        return f"""\
127.0.0.1:{self.open} inet n - n - - smtpd
127.0.0.1:{self.login} inet n - n - - smtpd {login}
127.0.0.1:{self.implicit} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class OpenSMTPD(Server):
    name = "OpenSMTPD"
    packages = ("opensmtpd",)

    def configure(self) -> None:
        self.folder("var/lib/opensmtpd/empty")
        self.folder("var/spool/smtpd", mode=0o711)
        secret = self.inside("/usr/sbin/smtpctl", "encrypt", PASSWORD, group=2004)
        self.write(
            "etc/smtpd.conf",
            f"""\
pki interop cert "/etc/ssl/interop/cert.pem"
pki interop key "/etc/ssl/interop/key.pem"
table users {{ "{USER}" = "{secret}" }}
smtp max-message-size {SIZE}
listen on 127.0.0.1 port {self.open} tls pki interop
listen on 127.0.0.1 port {self.login} tls-require pki interop auth <users>
listen on 127.0.0.1 port {self.implicit} smtps pki interop
action "onward" relay host "smtp://127.0.0.1:{self.onward}"
match from any for rcpt-to "{REFUSED}" reject
match from any for any action "onward"
""",
            0o600,
        )

    def command(self) -> Sequence[str]:
        return ["/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf"]


class Exim(Server):
    name = "Exim"
    packages = ("exim4-daemon-light", "exim4-base")

    def configure(self) -> None:
        for path in ("var/spool/exim4", "var/log/exim4", "run/exim4", "var/run/exim4"):
            self.folder(path, 2002, 2002, 0o750)
        os.chown(self.root / "etc/ssl/interop/key.pem", 2002, 2002)
        right = f"${{if and{{{{eq{{$auth2}}{{{USER}}}}}{{eq{{$auth3}}{{{PASSWORD}}}}}}}}}"
        self.write(
            "etc/exim4/exim4.conf",
            f"""\
primary_hostname = mx.interop.test
local_interfaces = 127.0.0.1.{self.open} : 127.0.0.1.{self.login} : 127.0.0.1.{self.implicit}
tls_on_connect_ports = {self.implicit}
tls_advertise_hosts = *
tls_certificate = /etc/ssl/interop/cert.pem
tls_privatekey = /etc/ssl/interop/key.pem
message_size_limit = {SIZE}
smtp_accept_queue_per_connection = 0
smtp_accept_max = 100
keep_environment =
host_lookup =
acl_smtp_rcpt = recipient
begin acl
recipient:
  deny recipients = {REFUSED}
       message = no such user
  deny condition = ${{if eq{{$received_port}}{{{self.login}}}}}
       !authenticated = *
       message = authentication required
  accept
begin routers
onward:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = onward
begin transports
onward:
  driver = smtp
  port = {self.onward}
  allow_localhost
  hosts_avoid_tls = *
begin retry
* * F,1h,1m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = {right}
  server_set_id = $auth2
  server_advertise_condition = ${{if and{{{{def:tls_in_cipher}}{{eq{{$received_port}}{{{self.login}}}}}}}}}
""",
            0o640,
        )

    def command(self) -> Sequence[str]:
        return ["/usr/sbin/exim4", "-bdf", "-q10s"]


@contextlib.contextmanager
def smtp_sink(root: Path, dumps: Path) -> Iterator[int]:
    """Postfix's ``smtp-sink`` of the tree below *root*, which writes what it takes to *dumps*, a file each; its port."""
    (port,) = free_ports(1)
    dumps.chmod(0o777)
    command = ["usr/sbin/smtp-sink", "-u", "nobody", "-d", f"{dumps}/m.", f"127.0.0.1:{port}", "100"]
    process = subprocess.Popen(
        [str(root / command[0]), *command[1:]],
        env={**os.environ, "LD_LIBRARY_PATH": packages.libraries(root)},
        start_new_session=True,
    )
    try:
        wait_for(port, process, str)
        yield port
    finally:
        process.terminate()
        process.wait()


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in found]


def make_device(path: Path, device: tuple[int, int]) -> None:
    """Where devices cannot be made or used, an empty file does for most."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(*device))
        path.chmod(0o666)
        path.open("rb").close()
    except OSError:
        path.unlink(missing_ok=True)
        path.touch()
        path.chmod(0o666)


def wait_for(port: int, process: subprocess.Popen[bytes], log: object) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                said = log() if callable(log) else ""
                raise packages.Missing(f"it does not listen on port {port}; it said: {said}") from None
            time.sleep(0.1)
        else:
            return


def end(root: Path, process: subprocess.Popen[bytes]) -> None:
    """End it and whatever it has started: all that have *root* as their root, and nobody else."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for number in inhabitants(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait()


def inhabitants(root: Path) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "root").readlink() == root:
                found.append(int(folder.name))
    return found


def remove(root: Path) -> None:
    """The tree and all in it; until nobody is left in it, it is not gone."""
    shutil.rmtree(root, ignore_errors=True)
