//! Signals, for real: each test starts this program again as a process of its own and signals that.
#![allow(clippy::unwrap_used, reason = "a test's helper fails as the test does")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use harness::run::{
    cancel::{Cancel, Ended, INTERRUPTED},
    events::Events,
};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

/// Says `working` when it works; when interrupted says `cleaning`, and cleans up until its input ends.
#[test]
#[ignore = "the other tests run it"]
fn child() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(async {
        let cancel = Cancel::on_signals(&Events::discard()).unwrap();
        let work = async {
            println!("working");
            std::future::pending::<()>().await;
        };
        let clean_up = async {
            println!("cleaning");
            tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
            println!("cleaned");
        };
        cancel.guard(work, clean_up).await
    });
    std::process::exit(if matches!(ended, Ended::Interrupted(_)) { i32::from(INTERRUPTED) } else { 1 });
}

fn start() -> (Child, BufReader<std::process::ChildStdout>, Pid) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&process);
    let mut lines = BufReader::new(process.stdout.take().unwrap());
    read_until(&mut lines, "working");
    (process, lines, pid)
}

/// Reads to the line that ends with `wanted`: the test runner writes its own words before it.
fn read_until(lines: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while !line.trim_end().ends_with(wanted) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "ended without saying `{wanted}`");
    }
}

#[rstest]
#[case(Signal::INT)]
#[case(Signal::TERM)]
#[case(Signal::HUP)]
fn the_first_signal_cleans_up(#[case] signal: Signal) {
    let (mut process, mut lines, pid) = start();
    kill_process(pid, signal).unwrap();
    read_until(&mut lines, "cleaning");
    drop(process.stdin.take());
    read_until(&mut lines, "cleaned");
    assert_eq!(process.wait().unwrap().code(), Some(i32::from(INTERRUPTED)));
}

#[test]
fn the_second_signal_exits_at_once_and_names_gc() {
    let (mut process, mut lines, pid) = start();
    kill_process(pid, Signal::TERM).unwrap();
    read_until(&mut lines, "cleaning");
    // `wait` closes the input that it still holds, and the clean-up would end by itself.
    let _input = process.stdin.take();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(i32::from(INTERRUPTED)));
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("`cargo xtask gc` removes what is left"), "{said}");
}
