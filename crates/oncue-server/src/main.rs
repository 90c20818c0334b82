//! The binary `oncue`.

use std::process::ExitCode;

fn main() -> ExitCode {
    oncue_server::cli::main(std::env::args_os())
}
