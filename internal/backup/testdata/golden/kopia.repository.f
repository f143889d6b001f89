{
  "tool": "https://github.com/kopia/kopia",
  "buildVersion": "v0-unofficial",
  "buildInfo": "-(unknown_revision)",
  "uniqueID": "S+9bddcW1JRTPJ/lrtE/8XYm4vwyrQX8nZsDQnKUHsY=",
  "keyAlgo": "scrypt-65536-8-1",
  "encryption": "AES256_GCM",
  "encryptedBlockFormat": "uQw59HH7dmA08Q3qd95dpo10CEjncJViEuu5NyaD6kYMTzJcqN8skkd4/QaINVprrvTNUxG5FrCQnEEzm1VwUkOJTi2nQ6M7zYjZEEpR3o2q1AfU7/WcDopnnK/1iAqmBXR9JnINeeFVxGsigNTZTWTwDkE5ZAFx+gCJACAlA6oM7LyVCXA6ma/BnguJnvhIoJW+icsqBHyuUPc899DMjgFtJ7xu/nMSChd/qBvriJTSCSdmplNJinJBoK6QeqC263EWacyaM0re/rhwUXff8JTUJ+2lQWTjAj7hR5eX53nUCdMlEpf6QPHpRcbqDEXO2Yhh2aiv+neJTjWzjyxQ4AOlESgohyqQVboR67YKdTJe+0zOsqekny4FlzpSgxcvnexNuh/fcn3E4Hz14P+60WZlMNmZjoZZQ0OGsGgib+Xl77b3EZC+9uwyqZF3c5l8jY5hBihu+TyGm9tomrmS72G5yRyY4ZBzYERBUonnpU+csRJUDjj4k+LBFsqroE02Pz+kOzxzEIFGuSyIioJNe2jPVWtxVpcxIRLkvhsEiflmeLDKD7nAhey24ElHYb/3xJz3k7IKSUJUZlMwWmM7sV0lPqGWue8z5vxC0kh4saiXbkEXWiCVzBZIVEYpKtYDeYp5vyftM7WK/jHzl+Dr0xlnJWbytUrfPGQlhcMtHhJ6VD5irKRkuYFX0z/ITz/EZm0ApCwfeXflvr0k0aN2lgs0/Oxyt83oFNjOBPex/Bn6iGKhjPFWmjAhiyIb/ByqYF6bYRVzv71+nDFsv4V6g1xcDpUq2FrhDNvkbR8w8w=="
}
