FROM base
ENV A='$x "y"' B="\$x \"q\"" C=\$x D=it\'s
