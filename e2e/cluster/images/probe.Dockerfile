# Debian's static busybox, for tests that ask what a pod can reach: nc, nslookup, wget, httpd, sleep, sh,
# and `reach HOST PORT [SECONDS]`, which says by its status whether a TCP connection can be made.
FROM scratch
COPY . /
USER 65534:65534
ENV PATH=/bin
CMD ["/bin/sleep", "2147483647"]
