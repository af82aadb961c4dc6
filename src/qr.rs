//! QR codes: drawn small, as PNG or as data URL. Knows nothing of where the text comes from.

use base64::Engine as _;
use qrcode::{Color, EcLevel, QrCode};

/// A text that is too long for a QR, or a picture that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the QR cannot be drawn: {0}")]
pub(crate) struct Undrawable(String);

/// `data:image/png;base64,…`, below 2,000 characters for every QR text WhatsApp uses.
///
/// # Errors
/// [`Undrawable`]
pub(crate) fn data_url(text: &str) -> Result<String, Undrawable> {
    Ok(format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png(text)?)))
}

/// A black-and-white picture with one bit per pixel.
///
/// # Errors
/// [`Undrawable`]
pub(crate) fn png(text: &str) -> Result<Vec<u8>, Undrawable> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|error| Undrawable(error.to_string()))?;
    let modules = code.width();
    let side = (modules + 2 * QUIET_MODULES) * PIXELS_PER_MODULE;
    let row_bytes = side.div_ceil(8);
    let colors = code.to_colors();
    let mut pixels = Vec::with_capacity(row_bytes * side);
    for y in 0..side {
        let mut row = vec![0xffu8; row_bytes];
        if let Some(my) = (y / PIXELS_PER_MODULE).checked_sub(QUIET_MODULES).filter(|my| *my < modules) {
            let dark = colors.iter().skip(my * modules).take(modules);
            for (mx, _) in dark.enumerate().filter(|(_, color)| **color == Color::Dark) {
                let from = (mx + QUIET_MODULES) * PIXELS_PER_MODULE;
                for x in from..from + PIXELS_PER_MODULE {
                    row[x / 8] &= !(0x80 >> (x % 8));
                }
            }
        }
        pixels.extend_from_slice(&row);
    }
    encode(side, &pixels).map_err(|error| Undrawable(error.to_string()))
}

fn encode(side: usize, pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let side = u32::try_from(side).expect("a QR has at most 177 modules a side");
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.set_compression(png::Compression::High);
    // Equal rows compress best against the row above.
    encoder.set_filter(png::Filter::Up);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(out)
}

const PIXELS_PER_MODULE: usize = 4;

/// White border the standard asks for.
const QUIET_MODULES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as the longest current form: link prefix, ref, three keys, platform.
    fn text() -> String {
        let key = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/AbCdE=";
        format!("https://wa.me/settings/linked_devices#2@{key}{key}{key},{key},{key},{key},1")
    }

    #[test]
    fn the_data_url_stays_below_two_thousand_characters() {
        let url = data_url(&text()).unwrap();
        assert!(url.len() <= 2000, "{} characters for {}", url.len(), text().len());
    }

    #[test]
    fn the_picture_shows_the_modules_of_the_code() {
        let bytes = png(&text()).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let code = QrCode::with_error_correction_level(text(), EcLevel::L).unwrap();
        let side = (code.width() + 8) * 4;
        assert_eq!((info.width as usize, info.height as usize), (side, side));
        let colors = code.to_colors();
        for y in 0..side {
            for x in 0..side {
                let module = |at: usize| (at / 4).checked_sub(4).filter(|at| *at < code.width());
                let is_dark = match (module(x), module(y)) {
                    (Some(mx), Some(my)) => colors[my * code.width() + mx] == Color::Dark,
                    _ => false,
                };
                assert_eq!(pixels[y * side + x] == 0, is_dark, "{x},{y}");
            }
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_an_error() {
        assert!(data_url(&"x".repeat(5000)).is_err());
    }
}
