//! A picture of the guest's display.

use std::io;
use std::path::PathBuf;

use crate::error::CommandError;
use crate::session::Session;

/// Why there is no picture. The guest is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScreendumpError {
    /// The board has no display.
    #[error("this board has no display")]
    NoDisplay,
    /// This QEMU cannot write PNG: one before 7.1, or one that was built without libpng.
    #[error(
        "this QEMU cannot write PNG files ({said}); its command `screendump` without a format writes PPM"
    )]
    NoPng {
        /// What QEMU said.
        said: String,
    },
    /// QEMU could not be asked.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file that QEMU writes the picture to cannot be read, or not be named to it.
    #[error("the picture cannot be passed on by the file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Session {
    /// The guest's first display as it is now, as a PNG file's bytes (`screendump`; QEMU 7.1 or
    /// later). Neither needs a window nor stops the guest. A small display may be magnified: the
    /// 128 by 64 pixels of `lm3s6965evb` come as 512 by 256.
    ///
    /// QEMU writes it to a file in a private folder, which is gone when this returns; so an
    /// attached QEMU has to run on this machine.
    ///
    /// # Errors
    /// [`ScreendumpError`].
    pub async fn screendump(&self) -> Result<Vec<u8>, ScreendumpError> {
        let folder = tempfile::Builder::new().prefix("qemu-").tempdir();
        let folder = folder.map_err(|source| ScreendumpError::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let path = folder.path().join("screen.png");
        let filename = path.to_str().ok_or_else(|| ScreendumpError::File {
            path: path.clone(),
            source: io::Error::other("its name is not UTF-8, which QMP needs"),
        })?;
        let arguments = serde_json::json!({ "filename": filename, "format": "png" });
        self.execute("screendump", &arguments)
            .await
            .map_err(reason)?;
        std::fs::read(&path).map_err(|source| ScreendumpError::File { path, source })
    }
}

/// QEMU tells these apart by its words alone.
fn reason(error: CommandError) -> ScreendumpError {
    let CommandError::Refused { error: refused, .. } = &error else {
        return error.into();
    };
    let said = &refused.desc;
    if said.contains("no console") || said.contains("no display") {
        return ScreendumpError::NoDisplay;
    }
    if said.contains("'format'") || said.contains("libpng") {
        return ScreendumpError::NoPng {
            said: said.to_string(),
        };
    }
    error.into()
}
