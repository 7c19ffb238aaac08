//! Certificates of hosts: authorities, requests, enrolment, renewal, keys.
