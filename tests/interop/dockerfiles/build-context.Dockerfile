FROM base
COPY --from=named /etc/group /group
