"""What a tool costs beside its peer: see scripts/bench."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

BIN = os.environ["TRACEBELT_BIN"]
ROUNDS = int(os.environ.get("ROUNDS", "5"))
WORK = BIN + "/workload"
DEEP = os.path.join(tempfile.mkdtemp(prefix="bench."), "deep")
PIN = "taskset -c %d " % max(os.sched_getaffinity(0))

# 16,384 reads of a loop device, each of which is one of the disk below, too.
READS = ("f=$(mktemp) && head -c 64M /dev/zero >$f && d=$(losetup --find --show --direct-io=on $f) && "
         "dd if=$d of=/dev/null bs=4k iflag=direct 2>/dev/null; losetup --detach $d; rm $f")

# tool: (peer, its arguments, our arguments, {load: command})
TOOLS = {
    "runqlat": ("/usr/sbin/runqlat", ["1000", "1"], [], {
        "two threads over pipes, one CPU": PIN + WORK + " pingpong 100003",
        "short threads, 64 at a time": WORK + " threads 10007",
    }),
    "runqlat -P": ("/usr/sbin/runqlat", ["-P", "1000", "1"], ["-P"], {
        "two threads over pipes, one CPU": PIN + WORK + " pingpong 100003",
    }),
    "offcputime": ("/usr/sbin/offcputime", ["1000"], [], {
        "two threads over pipes, one CPU": PIN + WORK + " pingpong 100003",
        "the same, 15 frames deep": PIN + DEEP + " 15 100003",
        "short threads, 64 at a time": WORK + " threads 10007",
    }),
    "offcputime --exact": ("/usr/sbin/offcputime", ["1000"], ["--exact"], {
        "two threads over pipes, one CPU": PIN + WORK + " pingpong 100003",
        "the same, 15 frames deep": PIN + DEEP + " 15 100003",
    }),
    "biolatency": ("/usr/sbin/biolatency", ["1000", "1"], [], {"reads of a loop device": READS}),
    "biolatency -Q": ("/usr/sbin/biolatency", ["-Q", "1000", "1"], ["-Q"], {"reads of a loop device": READS}),
    "biolatency -D -F": ("/usr/sbin/biolatency", ["-D", "-F", "1000", "1"], ["-D", "-F"],
                         {"reads of a loop device": READS}),
    "opensnoop": ("/usr/sbin/opensnoop", [], [], {
        "one process, as fast as it can": WORK + " opens openat 100003 /etc/hostname",
    }),
}


def programs(pid):
    """Nanoseconds and runs of the programs that a process holds, by name."""
    ids = set()
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            lines = open(f"/proc/{pid}/fdinfo/{fd}").read().splitlines()
        except OSError:
            continue
        ids.update(int(line.split()[1]) for line in lines if line.startswith("prog_id:"))
    shown = json.loads(subprocess.check_output(["bpftool", "prog", "show", "-j"]))
    return {p["name"]: (p.get("run_time_ns", 0), p.get("run_cnt", 0)) for p in shown if p["id"] in ids}


def wait_attached(tool):
    """The peers do not say when they are ready: their programs are there, and no more are coming."""
    before = {}
    while True:
        time.sleep(0.3)
        if tool.poll() is not None:
            sys.exit(f"bench: {' '.join(tool.args)} ended by itself with {tool.returncode}")
        now = programs(tool.pid)
        if now and now.keys() == before.keys():
            return
        before = now


def used(pid):
    """User-space CPU seconds and peak resident KiB."""
    stat = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    peak = next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM"))
    ticks = int(stat[11]) + int(stat[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(peak.split()[1])


def once(commands, load):
    """One load under both tools: nanoseconds in the kernel, CPU seconds and memory of each."""
    tools = {}
    for who, command in commands:
        tools[who] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_attached(tools[who])
    before = {who: programs(tool.pid) for who, tool in tools.items()}
    cpu = {who: used(tool.pid)[0] for who, tool in tools.items()}
    subprocess.run(load, shell=True, check=True, stdout=subprocess.DEVNULL)
    after = {who: programs(tool.pid) for who, tool in tools.items()}
    time.sleep(0.2)
    result = {}
    for who, tool in tools.items():
        spent = {name: (ns - before[who].get(name, (0, 0))[0], runs - before[who].get(name, (0, 0))[1])
                 for name, (ns, runs) in after[who].items()}
        seconds, peak = used(tool.pid)
        result[who] = (sum(ns for ns, _ in spent.values()), spent, seconds - cpu[who], peak)
        tool.send_signal(signal.SIGINT)
    for tool in tools.values():
        tool.wait()
    return result


def startup(command):
    """Milliseconds from the start to everything attached."""
    reader, writer = os.pipe()
    start = time.monotonic()
    tool = subprocess.Popen(command + ["--ready-fd", str(writer)], pass_fds=[writer],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writer)
    os.read(reader, 6)
    took = (time.monotonic() - start) * 1000
    os.close(reader)
    tool.send_signal(signal.SIGINT)
    tool.wait()
    return took


def bench(name):
    peer, peer_args, our_args, loads = TOOLS[name]
    ours = [f"{BIN}/{name.split()[0]}"] + our_args
    print(f"{name}: ready after {statistics.median(startup(ours) for _ in range(ROUNDS)):.0f} ms")
    for what, load in loads.items():
        rounds = []
        for i in range(ROUNDS):
            commands = [("ours", ours), ("theirs", [peer] + peer_args)]
            rounds.append(once(commands[:: 1 if i % 2 else -1], load))
        ratio = statistics.median(r["ours"][0] / r["theirs"][0] for r in rounds)
        print(f"  {what}: {ratio:.3f} of the peer's time in the kernel")
        for who in ("ours", "theirs"):
            each = rounds[0][who][1].items()
            runs = ", ".join(f"{prog} {ns / count:.0f} ns x {count}" for prog, (ns, count) in each if count > 100)
            cpu = statistics.median(r[who][2] for r in rounds)
            peak = max(r[who][3] for r in rounds)
            print(f"    {who:6}  user space {cpu:.2f} s, {peak / 1024:.1f} MiB; {runs}")


def deep():
    """The load in C, with frame pointers."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "deep.c")
    subprocess.run(["cc", "-O1", "-fno-omit-frame-pointer", "-pthread", "-o", DEEP, source], check=True)


def main():
    setting = "/proc/sys/kernel/bpf_stats_enabled"
    before = open(setting).read()
    open(setting, "w").write("1")
    try:
        names = [name for name in TOOLS if len(sys.argv) == 1 or name.split()[0] in sys.argv[1:]]
        if any(DEEP in load for name in names for load in TOOLS[name][3].values()):
            deep()
        for name in names:
            bench(name)
    finally:
        open(setting, "w").write(before)
        shutil.rmtree(os.path.dirname(DEEP))


main()
