//! The entry point of the command; everything else is in the library.

fn main() {
    backfiller::run(std::env::args_os()).exit()
}
