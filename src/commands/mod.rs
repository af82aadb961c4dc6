//! What the program does besides running a worker: one file per subcommand. Each takes the configuration, tells what it
//! does on the output it is given, and knows nothing of arguments and exit codes: those are `main.rs`'s.

mod rotate_key;

pub use rotate_key::rotate_key;
