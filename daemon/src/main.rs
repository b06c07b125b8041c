//! The `quaild` command; everything it does is in the library, where tests reach it.

fn main() -> std::process::ExitCode {
    quaild::app::main()
}
