//! What the command line answers by itself.
#![expect(clippy::unwrap_used, reason = "a test, its helpers included, may stop at the first surprise")]

use std::process::{Command, Output};

fn faultline(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_faultline")).args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn help_names_what_a_user_can_do_and_nothing_else() {
    let help = stdout(&faultline(&["--help"], &[]));
    for command in ["  up ", "  import ", "  parts ", "  config "] {
        assert!(help.contains(command), "{command} is missing from:\n{help}");
    }
    assert!(!help.contains("clickhouse-server"), "{help}");
    assert!(stdout(&faultline(&["up", "--help"], &[])).contains("--allow-weak-durability"));
    assert_eq!(stdout(&faultline(&["--version"], &[])), format!("faultline {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_configuration_is_shown_as_it_is_but_for_secrets() {
    let variables = [("FAULTLINE__KAFKA__BROKERS", "one:9092,two:9092"), ("FAULTLINE__CLICKHOUSE__PASSWORD", "hunter2")];
    let shown = stdout(&faultline(&["config"], &variables));
    assert!(shown.contains("brokers = \"one:9092,two:9092\"") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_default_file_can_be_used_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("faultline.toml");
    std::fs::write(&file, stdout(&faultline(&["config", "--default"], &[]))).unwrap();
    let from_file = stdout(&faultline(&["--config", file.to_str().unwrap(), "config"], &[]));
    assert_eq!(from_file, stdout(&faultline(&["config"], &[])));
}

#[test]
fn an_argument_that_makes_no_sense_is_named() {
    let output = faultline(&["up", "--kafak", "somewhere:9092"], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("--kafak") && said.contains("--kafka"), "{said}");
}
