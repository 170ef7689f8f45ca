"""Several cameras in one metric frame: their poses, found from boards, with covariance."""
