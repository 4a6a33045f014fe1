//! The program as its users meet it, and its parts on real assets: one module for each group.

mod assets;
mod encode;
mod encode_folder;
mod encode_pictures;
mod endpoint;
mod false_privacy;
mod gate;
mod hostile;
mod hub;
mod own;
mod pictures;
mod prior;
mod protect;
mod recover;
mod run;
mod status_page;
mod value;
