//! The program as its users meet it, and its parts on real assets: one module for each group.

mod assets;
mod encode;
mod encode_folder;
mod encode_pictures;
mod false_privacy;
mod pictures;
mod prior;
mod protect;
mod recover;
mod run;
mod value;
