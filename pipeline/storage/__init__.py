"""Files wherever they lie: this machine, S3, other stores and the web; reading ahead, writing atomically."""
