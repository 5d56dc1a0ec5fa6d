"""A real SLURM cluster of one node on loopback, with accounting, preemption and pretend GPUs, for the tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PACKAGES = ("slurm-wlm", "slurmdbd", "munge", "mariadb-server")
PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch", "sacct")
ETC = Path("/etc/slurm")
CONFIGURED = ("slurm.conf", "gres.conf", "slurmdbd.conf")
NAME = "mirrorsym"
CPUS = 4
"""More than a small machine has: jobs wait for each other while they start, more than they compute."""

SLURMDBD = """
AuthType=auth/munge
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""
SLURM = """
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
MpiDefault=none
ReturnToService=2
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=10
UnkillableStepTimeout=60
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/none
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
MinJobAge=300
PreemptMode=REQUEUE
PreemptType=preempt/partition_prio
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def _processes_of_jobs() -> list[psutil.Process]:
    """Return the watchers (slurmstepd) and processes of all jobs of the test's cluster."""
    found = []
    for process in psutil.process_iter(["name", "environ"]):
        in_job = (process.info["environ"] or {}).get("SLURM_CLUSTER_NAME") == NAME
        if in_job or process.info["name"] == "slurmstepd":
            found.append(process)
    return found


def _kill_jobs() -> None:
    """Kill the watchers, then the processes: a watcher that sees its job end would report it."""
    for process in sorted(_processes_of_jobs(), key=lambda process: process.info["name"] != "slurmstepd"):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


class Unavailable(Exception):
    """SLURM cannot be started on this machine; the message is one sentence."""


@dataclass
class Slurm:
    """The cluster's daemons, started in a folder of their own and ended by their process ids."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Start all daemons and wait until the node is idle.

        Raises:
            Unavailable: if the machine does not admit it.
        """
        require_programs()
        for name in ("state", "spool", "dev", "log", "run", "mysql"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._configure()
        self._start_munge()
        self._start_database()
        self._spawn("slurmdbd", "slurmdbd", "-D")
        _wait("slurmdbd", lambda: _run("sacctmgr", "-n", "list", "cluster").returncode == 0)
        _run("sacctmgr", "-i", "add", "cluster", NAME)
        self._spawn("slurmctld", "slurmctld", "-D")
        self.start_node()
        for account in ("default", "other"):
            _run("sacctmgr", "-i", "add", "account", account)
            _run("sacctmgr", "-i", "add", "user", "root", f"account={account}")
        self.wait_for_node()

    def start_node(self) -> None:
        """Start the node's daemon, as after a repair."""
        self._spawn("slurmd", "slurmd", "-D", "-N", _host())

    def kill_node(self) -> None:
        """Kill the node's daemon, its jobs' watchers and then their processes, as a power cut does."""
        self.daemons["slurmd"].kill()
        self.daemons["slurmd"].wait()
        _kill_jobs()

    def wait_for_node(self) -> None:
        """Wait until the node takes jobs."""
        _wait("the node", lambda: node_state() in ("idle", "mixed", "allocated"))

    def stop(self) -> None:
        """Cancel what is left, end the daemons and remove their configuration."""
        if self.daemons.get("slurmctld"):
            _run("scancel", "--user", "root")
            time.sleep(1)
        for name in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            if name in self.daemons:
                self.daemons[name].terminate()
        for process in self.daemons.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        if "slurmd" in self.daemons:  # else the jobs here are another cluster's
            _kill_jobs()  # linuxproc loses those whose parent was ended first
        for name in CONFIGURED:
            if (ETC / name).is_symlink():
                (ETC / name).unlink()

    def _configure(self) -> None:
        """Write the configuration; a job's own srun finds it in /etc/slurm only."""
        ports = dict(zip(("dbd_port", "sql_port", "ctld_port", "slurmd_port"), _free_ports(4), strict=True))
        values = {"name": NAME, "folder": self.folder, "host": _host(), "cpus": CPUS, **ports}
        for gpu in range(2):
            (self.folder / "dev" / f"gpu{gpu}").touch()
        self.sql_port = ports["sql_port"]
        texts = {
            "slurm.conf": SLURM.format(**values),
            "gres.conf": f"NodeName={_host()} Name=gpu File={self.folder}/dev/gpu[0-1]\n",
            "slurmdbd.conf": SLURMDBD.format(**values),
        }
        ETC.mkdir(exist_ok=True)
        for name, text in texts.items():
            path, link = self.folder / name, ETC / name
            path.write_text(text)
            path.chmod(0o600)
            if link.is_symlink():
                link.unlink()
            if link.exists():
                raise Unavailable(f"{link} exists: this machine belongs to a SLURM cluster already")
            link.symlink_to(path)

    def _start_munge(self) -> None:
        if _run("munge", "-n").returncode == 0:
            return
        subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "/run/munge"], check=True)
        key = Path("/etc/munge/munge.key")
        if not key.exists() or not key.stat().st_size:
            key.write_bytes(os.urandom(1024))
            shutil.chown(key, "munge", "munge")
            key.chmod(0o400)
        self._spawn("munged", "runuser", "-u", "munge", "--", "munged", "--foreground")
        _wait("munge", lambda: _run("munge", "-n").returncode == 0)

    def _start_database(self) -> None:
        data, socket_file = self.folder / "mysql", self.folder / "run" / "mysqld.sock"
        shutil.chown(data, "mysql")
        shutil.chown(self.folder / "run", "mysql")
        install = [
            "mariadb-install-db",
            "--user=mysql",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ]
        subprocess.run(install, check=True, capture_output=True)
        options = ["--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={socket_file}"]
        bound = ["--bind-address=127.0.0.1", f"--port={self.sql_port}", "--innodb-lock-wait-timeout=900"]
        self._spawn("mariadbd", "mariadbd", *options, *bound, f"--pid-file={self.folder}/run/mysqld.pid")
        _wait("mariadbd", lambda: _run("mariadb-admin", f"--socket={socket_file}", "ping").returncode == 0)
        user = "create user slurm@'127.0.0.1' identified by 'slurm'; grant all on slurm_acct_db.* to slurm@'127.0.0.1';"
        _run("mariadb", f"--socket={socket_file}", "-e", f"create database slurm_acct_db; {user}")

    def _spawn(self, name: str, *command: str) -> None:
        with open(self.folder / "log" / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def require_programs() -> None:
    """Install SLURM where a program is missing and it may be installed.

    Raises:
        Unavailable: if it may not.
    """
    if not all(map(_which, PROGRAMS)):
        install(PACKAGES)
    if not all(map(_which, PROGRAMS)):
        raise Unavailable(f"{', '.join(PACKAGES)} are installed, and some of {', '.join(PROGRAMS)} are missing")


def install(packages: Sequence[str]) -> None:
    """Install Debian's packages.

    Raises:
        Unavailable: if that is not possible on this machine.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable(f"only root on Debian may install {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with open(Path(tempfile.gettempdir()) / "mirrorsym-apt-get.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes of the tests install; the second finds the lists locked
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", "-q", *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"apt-get cannot install {', '.join(packages)}: {done.stderr.strip()[-200:]}")


def node_state() -> str:
    """Return the state of the node, such as "idle"."""
    return _run("sinfo", "-h", "-o", "%T").stdout.strip().rstrip("*")


def jobs() -> list[dict[str, str]]:
    """Return what accounting holds of each job, oldest first, its requeued starts among them."""
    names = ("JobID", "State", "ReqTRES", "Timelimit", "Partition", "Account", "Comment")
    listed = _run("sacct", "-X", "-D", "--parsable2", "--noheader", f"--format={','.join(names)}")
    return [dict(zip(names, line.split("|"), strict=True)) for line in listed.stdout.splitlines()]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _wait(what: str, ready: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise Unavailable(f"{what} did not start within {seconds:.0f} s")
        time.sleep(0.2)


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
