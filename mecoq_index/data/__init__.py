"""Where items come from: vectors, tables, images, views, and the protocols of data sets."""
