"""Processes under measurement: started, watched through /proc, ended."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 30
TICKS = os.sysconf("SC_CLK_TCK")


# Below what the kernel gives to outgoing connections: nobody takes one between looking and listening.
PORTS = iter(range(21000, 22000))


def free_port():
    for port in PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    sys.exit("no free port between 21000 and 22000")


def tree(root):
    """Process ids of `root` and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, grown = {root}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def cpu_seconds(root):
    """User time and system time of a process tree, its ended children included."""
    user = system = 0
    for process in tree(root):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        user, system = user + int(fields[11]), system + int(fields[12])
        if process == root:
            user, system = user + int(fields[13]), system + int(fields[14])
    return user / TICKS, system / TICKS


def cpu_so_far_ms(root):
    """CPU time of the living threads of a process tree, finer than a clock tick."""
    total = 0
    for process in tree(root):
        for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
            try:
                total += int(thread.read_text().split()[0])
            except OSError:
                continue
    return total / 1e6


def pin(root, cores):
    """Has all threads of a process tree run on these cores."""
    for process in tree(root):
        for thread in Path(f"/proc/{process}/task").glob("*"):
            try:
                os.sched_setaffinity(int(thread.name), cores)
            except OSError:
                continue


def memory_mib(root, kind="Pss"):
    """Proportional set size of a process tree (shared pages are counted once), or another of the sums of smaps_rollup."""
    total = 0
    for process in tree(root):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(re.search(rf"^{kind}:\s+(\d+)", text, re.M).group(1))
    return total / 1024


def ask(port, path, field="", host="bench"):
    """Status of one request, 0 where there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as stream:
            more = f"{field}\r\n" if field else ""
            stream.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n".encode())
            return int(stream.recv(4096).split(b" ", 2)[1])
    except (OSError, IndexError, ValueError):
        return 0


class Server:
    """A process group that serves on a port and ends with its owner."""

    def __init__(self, name, port, command, directory, path, cpu=None, patience=PATIENCE, field="",
                 host="bench", ready=None, **other_ports):
        self.name, self.port, self.field, self.other_ports = name, port, field, other_ports
        self.directory = directory
        ready = ready or (lambda: ask(port, path, field, host) == 200)
        self.log = open(directory / f"{name.replace('/', '-')}.log", "wb")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
        )
        while not ready():
            if self.process.poll() is not None or time.monotonic() - begun > patience:
                self.stop()
                sys.exit(f"{name} does not serve:\n" + Path(self.log.name).read_text(errors="replace"))
            time.sleep(0.002)
        self.cold_start = time.monotonic() - begun, cpu_so_far_ms(self.pid)

    @property
    def pid(self):
        return self.process.pid

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()
