"""What `pocketprior bench` measures: restoration quality beside rivals, and speed."""
